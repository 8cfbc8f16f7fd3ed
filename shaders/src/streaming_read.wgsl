// Reads a buffer from its start to its end and adds up all of its words.
// Every word is in the total, and the total is stored: no load can be left out.

struct Sum {
    words: atomic<u32>,
    // Wrapping sum of the words read.
    total: atomic<u32>,
}

@group(0) @binding(0) var<storage, read> data: array<u32>;
@group(0) @binding(1) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read_write> sum: Sum;

var<workgroup> partial: array<u32, 64>;

@compute @workgroup_size(64)
fn main(
    @builtin(global_invocation_id) invocation: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    let stride = groups.x * 64u;
    let count = min(params.count, arrayLength(&data));
    var words = 0u;
    var total = 0u;
    var index = invocation.x;
    while index < count {
        words += 1u;
        total += data[index];
        if stride >= count - index {
            break;
        }
        index += stride;
    }
    atomicAdd(&sum.words, words);

    partial[lane] = total;
    for (var width = 32u; width > 0u; width /= 2u) {
        workgroupBarrier();
        if lane < width {
            partial[lane] += partial[lane + width];
        }
    }
    if lane == 0u {
        atomicAdd(&sum.total, partial[0]);
    }
}
