//! `linux/udmabuf.h`: dma-bufs of sealed memfds.

use rustix::ioctl::opcode::write;

super::structures! {
    /// Makes a dma-buf of a range of a memfd; the call's value is its descriptor.
    udmabuf_create [24] {
        memfd: u32,
        flags: u32,
        offset: u64,
        size: u64,
    }
}

super::constants! {
    UDMABUF_CREATE = write::<udmabuf_create>(b'u', 0x42),
    UDMABUF_FLAGS_CLOEXEC = 1,
}
