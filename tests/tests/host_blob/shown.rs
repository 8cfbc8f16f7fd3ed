//! Host blobs as scanouts.

use super::*;

#[test]
fn what_the_guest_draws_into_a_host_blob_is_on_the_display() -> Result<()> {
    let options = SessionOptions {
        display: Some(DisplayConfig::sized(64, 32)),
        ..SessionOptions::host_blobs()
    };
    let mut rig = Rig::start(&["--shm-size", "8G"], &options)?;
    let context = ImageContext::new(&mut rig.gpu, 1, 100)?;
    let info = context.image(&mut rig.gpu, ImageRequest::xrgb(64, 32))?;
    context.create_blob(&mut rig.gpu, 200, &info)?;
    rig.gpu.map_blob(200, 0)?;
    let blob = ScanoutBlob {
        scanout: 0,
        resource: 200,
        rect: Rect::sized(64, 32),
        width: 64,
        height: 32,
        format: BGRX,
        stride: info.strides[0],
        offset: info.offsets[0],
    };
    rig.gpu.set_scanout_blob(blob)?;
    for round in 0..3 {
        let raw = noise(round, info.size as usize);
        rig.shmem().write(0, &raw);
        rig.gpu.flush(200, blob.rect)?;
        rig.display()
            .wait_picture(0, &Picture::of(BGRX, 64, 32, &raw))?;
    }
    rig.gpu.unref(200)?;
    rig.finish()
}

#[test]
fn a_scanout_must_lie_inside_its_host_blob() -> Result<()> {
    let (mut rig, context) = rig()?;
    context.blob_of(&mut rig.gpu, 200, 4 * PAGE)?;
    let good = ScanoutBlob {
        scanout: 0,
        resource: 200,
        rect: Rect::sized(64, 64),
        width: 64,
        height: 64,
        format: BGRX,
        stride: 256,
        offset: 0,
    };
    for bad in [
        ScanoutBlob { offset: 4, ..good },
        ScanoutBlob {
            stride: 260,
            ..good
        },
        ScanoutBlob {
            stride: u32::MAX,
            ..good
        },
        ScanoutBlob {
            offset: u32::MAX,
            ..good
        },
        ScanoutBlob {
            rect: Rect::sized(64, 65),
            ..good
        },
    ] {
        let answer = rig.gpu.answer(&request::set_scanout_blob(bad))?;
        assert_eq!(answer, resp::ERR_INVALID_PARAMETER, "{bad:?}");
    }
    rig.gpu.set_scanout_blob(good)?;
    rig.gpu.flush(200, good.rect)?;
    rig.gpu.unref(200)?;
    rig.finish()
}
