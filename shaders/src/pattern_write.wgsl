// Fills a buffer with the pattern.

@group(0) @binding(0) var<storage, read_write> data: array<u32>;
@group(0) @binding(1) var<uniform> params: Params;

@compute @workgroup_size(64)
fn main(
    @builtin(global_invocation_id) invocation: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    let stride = groups.x * 64u;
    let count = min(params.count, arrayLength(&data));
    var index = invocation.x;
    while index < count {
        data[index] = pattern_word(params.first_index + index, params.seed);
        // Written this way round, `index + stride` cannot wrap.
        if stride >= count - index {
            break;
        }
        index += stride;
    }
}
