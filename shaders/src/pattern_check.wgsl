// Compares a buffer with the pattern.
// `checked` tells "all words were right" from "nothing ran".

struct Outcome {
    checked: atomic<u32>,
    mismatches: atomic<u32>,
    // Position in the buffer of the first wrong word; the host writes 0xffffffff before the run.
    first_mismatch: atomic<u32>,
}

@group(0) @binding(0) var<storage, read> data: array<u32>;
@group(0) @binding(1) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read_write> outcome: Outcome;

@compute @workgroup_size(64)
fn main(
    @builtin(global_invocation_id) invocation: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    let stride = groups.x * 64u;
    let count = min(params.count, arrayLength(&data));
    var checked = 0u;
    var mismatches = 0u;
    var index = invocation.x;
    while index < count {
        checked += 1u;
        if data[index] != pattern_word(params.first_index + index, params.seed) {
            // An invocation walks upwards, so its first mismatch is its lowest.
            if mismatches == 0u {
                atomicMin(&outcome.first_mismatch, index);
            }
            mismatches += 1u;
        }
        if stride >= count - index {
            break;
        }
        index += stride;
    }
    atomicAdd(&outcome.checked, checked);
    atomicAdd(&outcome.mismatches, mismatches);
}
