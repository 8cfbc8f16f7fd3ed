//! OpenGL in a guest, by virgl on software Mesa.

use nosnoop_tests::lab::gl_guest::{self, Gl, GlLab, Plan, piglit};
use nosnoop_tests::lab::picture::Picture;

use super::*;

/// The feature bit VIRTIO_GPU_F_VIRGL.
const VIRGL: usize = 0;

#[test]
fn linux_draws_by_virgl_and_the_picture_is_on_the_screen() {
    let Some((lab, _turn)) = prepared(GlLab::prepare) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let plan = Plan {
        devices: vec![Gl::Ours],
        scenes: vec!["build".to_owned()],
        seconds: 5,
        frames: 200,
    };
    let measurement = gl_guest::run(&lab, &plan, folder.path());
    println!("{}", measurement.markdown());
    let results = &measurement.results[0];
    assert_eq!(results.broken, None);
    assert_eq!(results.features.as_bytes()[VIRGL], b'1');
    for platform in ["GBM", "Platform Device"] {
        assert!(results.names(platform, "virgl"), "{:?}", results.renderers);
    }
    let [build, off_screen, cube] = &results.drawn[..] else {
        panic!("{:?}", results.drawn);
    };
    for drawn in [build, off_screen, cube] {
        assert!(drawn.per_second.is_some(), "{drawn:?}");
        assert_eq!(drawn.kernel, Vec::<String>::new());
    }
    assert!(build.renderer.as_ref().unwrap().contains("virgl"));
    assert!(build.picture.is_some());
    // A cube of many colours in the middle of a grey screen.
    let picture = cube.picture.as_ref().expect("a picture of the screen");
    let picture = Picture::load(&folder.path().join(picture)).unwrap();
    assert_eq!((picture.size.width, picture.size.height), (640, 480));
    let at = |x: usize, y: usize| picture.pixels[640 * y + x];
    let corners = [at(0, 0), at(639, 0), at(0, 479), at(639, 479)];
    assert_eq!(corners, [0x80_8080; 4]);
    assert_ne!(at(320, 240), 0x80_8080);
}

#[test]
fn piglit_ends_by_virgl_as_it_does_on_llvmpipe_or_as_explained() {
    let Some((lab, _turn)) = prepared(GlLab::prepare) else {
        return;
    };
    let comparison = piglit::run(&lab, Gl::Ours).unwrap();
    println!("{}", comparison.markdown().unwrap());
    assert_eq!(comparison.verdicts.len(), piglit::list().len());
    assert_eq!(comparison.problems().unwrap(), Vec::<String>::new());
}
