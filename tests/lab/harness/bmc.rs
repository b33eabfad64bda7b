//! A management controller for a node: OpenIPMI's simulator on the LAN, whose power switch is the
//! node's cgroup and its network. What speaks to it speaks real IPMI.

use super::net::Net;
use super::{Lab, node, sh, try_sh, wait};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub const USER: &str = "admin";
pub const PASSWORD: &str = "streng-geheim-77";
const START: Duration = Duration::from_secs(120);

pub struct Bmc {
    n: usize,
    dir: PathBuf,
    switch: String,
    simulator: Option<Child>,
}

impl Lab {
    pub fn bmc(&self, n: usize) -> Bmc {
        let dir = self.dir.join(format!("bmc{}", n + 1));
        sh(&format!("mkdir -p {}/state; rm -f {0}/lies", dir.display()));
        let mut bmc = Bmc { n, dir, switch: self.net.switch(), simulator: None };
        bmc.write();
        bmc.start();
        bmc
    }
}

impl Bmc {
    pub fn address(n: usize) -> String {
        format!("192.168.0.{}", 201 + n)
    }

    fn write(&self) {
        let dir = self.dir.display();
        let conf = format!(
            "name \"n{0}\"\nset_working_mc 0x20\nstartlan 1\naddr {1} 623\npriv_limit admin\n\
             allowed_auths_callback none md2 md5 straight\n\
             allowed_auths_user none md2 md5 straight\n\
             allowed_auths_operator none md2 md5 straight\n\
             allowed_auths_admin none md2 md5 straight\n\
             guid a123456789abcdefa123456789abcd{0:02x}\nendlan\n\
             chassis_control \"{dir}/power\"\nstartnow false\n\
             user 2 true \"{USER}\" \"{PASSWORD}\" admin 10 none md2 md5 straight\n",
            self.n + 1,
            Bmc::address(self.n)
        );
        let commands = "mc_setbmc 0x20\n\
                        mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\n\
                        sel_enable 0x20 1000 0x0a\nmc_enable 0x20\n";
        let name = format!("hafailover-lab-{}-n{}", std::process::id(), self.n + 1);
        let cgroup = node::cgroup_root().join(name);
        // As a power loss: the processes stand still, the network is gone, then they are ended.
        let power = format!(
            "#!/bin/sh\ncg={}\nif [ \"$1\" = get ]; then on=0\n\
             grep -qs 'populated 1' $cg/cgroup.events && on=1\n\
             [ -e {dir}/said ] && on=0\nshift\n\
             for w; do [ $w = power ] && echo power:$on || echo $w:0; done; exit 0; fi\n\
             [ \"$1 $2 $3\" = 'set power 0' ] || exit 0\n\
             if [ -e {dir}/lies ]; then touch {dir}/said; exit 0; fi\n\
             [ -e $cg ] || exit 0\n\
             echo 1 > $cg/cgroup.freeze\n\
             for lan in lan hb; do ip -n {} link del n{}-$lan; done\nip netns del {}\n\
             echo 1 > $cg/cgroup.kill\necho 0 > $cg/cgroup.freeze\n",
            cgroup.display(),
            self.switch,
            self.n + 1,
            Net::node(self.n),
        );
        for (file, text) in [("lan.conf", conf), ("commands", commands.into()), ("power", power)] {
            std::fs::write(self.dir.join(file), text).expect("written");
        }
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(self.dir.join("power"), mode).expect("made a program");
    }

    pub fn start(&mut self) {
        let (dir, address) = (self.dir.display(), Bmc::address(self.n));
        let _ = try_sh(&format!("ip -n {} addr add {address}/24 dev lan", self.switch));
        let log = std::fs::File::create(self.dir.join("log")).expect("a file");
        // Not by ip netns exec, which hides the cgroups.
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.switch));
        // It ends with this program, however that ends.
        command.args(["setpriv", "--pdeathsig", "KILL", "ipmi_sim"]);
        command.args(["-n", "-c", &format!("{dir}/lan.conf"), "-f", &format!("{dir}/commands")]);
        command.args(["-s", &format!("{dir}/state")]).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a file")).stderr(log);
        self.simulator = Some(command.spawn().expect("openipmi is installed: prepare.sh"));
        wait("the management controller", START, || {
            let out = try_sh(&format!(
                "nsenter --net=/run/netns/{} timeout 20 ipmitool -I lanplus -C 3 -H {address} \
                 -U {USER} -P {PASSWORD} chassis power status",
                self.switch
            ));
            out.contains("Power is").then_some(())
        });
    }

    /// It has lost its own power, and answers nobody.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.simulator.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// From now on it says that it has switched off, and does not.
    pub fn lie(&self) {
        std::fs::write(self.dir.join("lies"), "").expect("written");
    }
}

impl Drop for Bmc {
    fn drop(&mut self) {
        self.stop();
        let address = Bmc::address(self.n);
        let _ = try_sh(&format!("ip -n {} addr del {address}/24 dev lan", self.switch));
        let _ = std::fs::remove_file(self.dir.join("said"));
    }
}
