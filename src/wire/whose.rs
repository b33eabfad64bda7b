//! Whose a shared disk is, as the headers on it say: a cluster's name, and its nodes in their
//! order. Big-endian: length 1, name, nodes 1, each: length 1, name.

use super::bytes::Reader;
use crate::core::name::NODES_MAX;

pub fn put(block: &mut Vec<u8>, cluster: &str, nodes: &[String]) {
    let mut word = |text: &str| {
        block.push(text.len() as u8);
        block.extend_from_slice(text.as_bytes());
    };
    word(cluster);
    block.push(nodes.len() as u8);
    for node in nodes {
        block.push(node.len() as u8);
        block.extend_from_slice(node.as_bytes());
    }
}

pub fn read(reader: &mut Reader) -> Option<(String, Vec<String>)> {
    let word = |reader: &mut Reader| {
        let len = usize::from(reader.u8()?);
        String::from_utf8(reader.bytes(len)?.to_vec()).ok()
    };
    let cluster = word(reader)?;
    let count = usize::from(reader.u8()?);
    let nodes = (0..count).map(|_| word(reader)).collect::<Option<Vec<String>>>()?;
    (count <= NODES_MAX).then_some((cluster, nodes))
}

/// What keeps this cluster of these nodes from using `what` is there, in words.
pub fn refuses(
    what: &str,
    (of, its): (&str, &[String]),
    cluster: &str,
    nodes: &[String],
) -> Option<String> {
    if of != cluster {
        return Some(format!("its {what} are those of cluster {of}, not {cluster}"));
    }
    (its != nodes).then(|| {
        let (its, nodes) = (its.join(", "), nodes.join(", "));
        format!("its {what} are for {its}, and the nodes are {nodes}")
    })
}
