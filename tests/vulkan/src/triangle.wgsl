// A triangle with a colour at each corner; `picture.rs` computes the same.

struct Corner {
    @builtin(position) position: vec4<f32>,
    @location(0) color: vec3<f32>,
}

@vertex
fn corner(@builtin(vertex_index) index: u32) -> Corner {
    var positions = array<vec2<f32>, 3>(
        vec2<f32>(-0.75, -0.75),
        vec2<f32>(0.75, -0.75),
        vec2<f32>(0.0, 0.75),
    );
    var colors = array<vec3<f32>, 3>(
        vec3<f32>(1.0, 0.0, 0.0),
        vec3<f32>(0.0, 1.0, 0.0),
        vec3<f32>(0.0, 0.0, 1.0),
    );
    return Corner(vec4<f32>(positions[index], 0.0, 1.0), colors[index]);
}

@fragment
fn shade(inside: Corner) -> @location(0) vec4<f32> {
    return vec4<f32>(inside.color, 1.0);
}
