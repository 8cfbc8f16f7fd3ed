//! Sockets of contexts, made by a program in the render server's place.
#![allow(clippy::panic, reason = "test code")]

use super::*;

#[test]
fn only_sockets_have_their_inodes() {
    assert_eq!(socket_inode("socket:[123]"), Some(123));
    for other in [
        "/dev/null",
        "pipe:[123]",
        "socket:[]",
        "socket:[12",
        "socket:[x]",
    ] {
        assert_eq!(socket_inode(other), None, "{other}");
    }
}
