//! The recipes of hafailover-recipes(7), as the page has them, with the real programs; and the
//! README's two servers.

mod daily;
mod manual;
mod quick;
mod servers;
mod sites;
mod stage;
mod storage;

use crate::stories::Story;

/// What they need on the nodes, and on the client.
pub const PACKAGES: &str = "apache2,drbd-utils,libiscsi-bin,libnfs-utils,lvm2,mariadb-server,\
    msmtp-mta,nfs-ganesha,nfs-ganesha-vfs,nfs-kernel-server,open-iscsi,openssh-server,sanlock,tgt";

pub const ALL: &[(&str, Story)] = &[
    ("recipe_file_server", servers::file_server),
    ("recipe_web_server", servers::web_server),
    ("recipe_database", servers::database),
    ("recipe_nfs_ganesha", servers::nfs_ganesha),
    ("recipe_iscsi_target", storage::iscsi_target),
    ("recipe_drbd", storage::drbd),
    ("recipe_lvm", storage::lvm),
    ("recipe_checked_only", storage::checked_only),
    ("recipe_addresses_and_source", daily::addresses_and_source),
    ("recipe_mail", daily::mail),
    ("recipe_init_script", daily::init_script),
    ("heartbeat_by_hand", daily::heartbeat_by_hand),
    ("readme_quick_start", quick::quick_start),
];

/// On four nodes.
pub const OF_FOUR: &[(&str, Story)] = &[("recipe_two_sites", sites::two_sites)];
