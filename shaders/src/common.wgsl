// Shared by every module: build.rs appends this file to each of them.

struct Params {
    // Changes every word of the pattern.
    seed: u32,
    // Pattern index of the buffer's first word.
    first_index: u32,
    // Words to process; more than the buffer holds means all that it holds.
    count: u32,
    // Must be 0.
    reserved: u32,
}

// The pattern. Its Rust twin is `pattern::word`; a test runs this function's compiled form against it.
fn pattern_word(index: u32, seed: u32) -> u32 {
    let spread = (index * 0x9e3779b9u) + seed;
    let a = (spread ^ (spread >> 16u)) * 0x85ebca6bu;
    let b = (a ^ (a >> 13u)) * 0xc2b2ae35u;
    return b ^ (b >> 16u);
}
