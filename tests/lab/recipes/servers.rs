//! Servers whose data is on the shared disk: a client sees it before and after.

use super::stage::{client, client_must, files, get, members, moved, prepare, runs_on, start};
use crate::cluster::{Cluster, PATIENCE};
use crate::harness::{ADDRESS, wait};
use std::process::Command;

/// With the passwords on the disk, as the file server has them; tested as its authors did: the
/// service stopped on the first node, and started again.
pub fn file_server(c: &mut Cluster) {
    let mut recipe = files("FILE SERVER", &[]);
    let target = recipe.iter_mut().find(|f| f.0.ends_with("files.target")).expect("a target");
    target.1 = target.1.replace("Order=listed", "Order=listed\nFailback=yes");
    prepare(c, "files", &recipe, "mkdir smb public; chmod 1777 public");
    for node in &c.lab.nodes {
        node.must("id -u steve >/dev/null 2>&1 || useradd -u 1500 steve");
    }
    start(c);
    runs_on(c, "files", 0);
    c.lab.node(0).must("printf 'pw\\npw\\n' | smbpasswd -s -a steve");
    wait("steve to write", PATIENCE, || smb(c, "put /etc/hostname there"));
    c.lab.node(0).must("systemctl stop hafailover");
    runs_on(c, "files", 1);
    wait("steve's file on n2", PATIENCE, || smb(c, "ls there").filter(|l| l.contains("there")));
    for unit in members(&recipe, "files") {
        assert_ne!(c.lab.node(0).run(&format!("systemctl is-active -q {unit}")).code, 0, "{unit}");
    }
    c.start(0);
    runs_on(c, "files", 0);
    wait("steve's file on n1", PATIENCE, || smb(c, "ls there").filter(|l| l.contains("there")));
}

/// What steve does on the client, if he gets in.
fn smb(c: &Cluster, command: &str) -> Option<String> {
    let mut run = Command::new("ip");
    run.args(["netns", "exec", &c.lab.net.client(), "timeout", "5", "smbclient", "-t", "2"]);
    run.args(["-U", "steve%pw", &format!("//{ADDRESS}/public"), "-c", command]);
    let out = run.output().expect("ip runs");
    out.status.success().then(|| String::from_utf8_lossy(&out.stdout).into_owned())
}

/// The master is rebooted, and takes the service back (Failback=yes in the recipe).
pub fn web_server(c: &mut Cluster) {
    let recipe = [files("FILE SERVER", &["mount"]), files("WEB SERVER", &[])].concat();
    prepare(c, "web", &recipe, "mkdir www; echo the page >www/index.html");
    c.lab.node(0).must("systemctl enable -q hafailover");
    start(c);
    runs_on(c, "web", 0);
    let page = || get(c, "/").filter(|page| page == "the page");
    wait("the page", PATIENCE, page);
    c.lab.node(0).run("systemctl reboot");
    runs_on(c, "web", 1);
    wait("the page from n2", PATIENCE, page);
    assert_eq!(c.evidence(1), "n1=Released", "waited for silence");
    c.lab.nodes[0].wait_down();
    c.lab.kill(0);
    c.lab.boot(0);
    runs_on(c, "web", 0);
    wait("the page from n1 again", PATIENCE, || get(c, "/"));
    assert_ne!(c.lab.node(1).run("systemctl is-active -q apache2").code, 0);
}

/// What was committed is there after a move and after a power loss.
pub fn database(c: &mut Cluster) {
    let recipe = [files("FILE SERVER", &["mount"]), files("DATABASE", &[])].concat();
    // Small: the lab's disk lies in memory.
    let small = "innodb_log_file_size = 8M\ninnodb_buffer_pool_size = 8M\n";
    let mut recipe = recipe;
    let cnf = recipe.iter_mut().find(|f| f.0.ends_with(".cnf")).expect("settings");
    cnf.1 += small;
    prepare(
        c,
        "db",
        &recipe,
        "mariadb-install-db --user=mysql --datadir=/ttidisk/mysql >/dev/null",
    );
    start(c);
    runs_on(c, "db", 1);
    let grant = "CREATE DATABASE shop; CREATE TABLE shop.sold (what INT PRIMARY KEY); \
                 GRANT ALL ON shop.* TO till@'192.168.0.50' IDENTIFIED BY 'pw';";
    c.lab.node(1).must(&format!("mariadb -e \"{grant}\""));
    sell(c, 1);
    moved(c, "db", 0);
    assert_eq!(sold(c), "1");
    sell(c, 2);
    c.lab.kill(0);
    runs_on(c, "db", 1);
    sell(c, 3);
    assert_eq!(sold(c), "1 2 3");
}

fn sell(c: &Cluster, what: u32) {
    sql(c, &format!("INSERT INTO sold VALUES ({what})"));
}

fn sold(c: &Cluster) -> String {
    sql(c, "SELECT what FROM sold ORDER BY what").split_whitespace().collect::<Vec<_>>().join(" ")
}

fn sql(c: &Cluster, statement: &str) -> String {
    client_must(c, &format!("mariadb -N -h {ADDRESS} -u till -ppw shop -e '{statement}'"))
}

/// The same file by the same name from either node. The grace time is shortened.
pub fn nfs_ganesha(c: &mut Cluster) {
    let mut recipe =
        [files("FILE SERVER", &["mount"]), files("NFS SERVER", &["share.target", "ganesha"])]
            .concat();
    let conf = recipe.iter_mut().find(|f| f.0.ends_with("ganesha.conf")).expect("a configuration");
    conf.1 = conf.1.replace("Grace_Period = 15", "Grace_Period = 3").replace("= 10;", "= 2;");
    prepare(c, "share", &recipe, "mkdir ganesha public; chmod 1777 public");
    start(c);
    runs_on(c, "share", 0);
    let at = |file: &str| format!("'nfs://{ADDRESS}/public/{file}?version=4'");
    client_must(c, &format!("nfs-cp /etc/debian_version {}", at("there")));
    let before = client(c, &format!("nfs-cat {}", at("there"))).expect("readable");
    assert!(!before.is_empty());
    moved(c, "share", 1);
    assert_eq!(client_must(c, &format!("nfs-cat {}", at("there"))), before);
    client_must(c, &format!("nfs-cp /etc/debian_version {}", at("here")));
    moved(c, "share", 0);
    assert_eq!(client_must(c, &format!("nfs-cat {}", at("here"))), before);
}
