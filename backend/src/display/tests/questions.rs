//! Answers that come late, or not at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use nosnoop_protocol::edid::Edid;
use nosnoop_protocol::reply::DisplayInfo;

use super::peer::Peer;
use super::{PATIENCE, connected, id, rect, size, two_outputs, within_patience};
use crate::display::Display;
use crate::display::requests::REPLY_DEADLINE;

fn info(width: u32) -> DisplayInfo {
    let mut info = DisplayInfo::default();
    info.modes[0].rect = rect(0, 0, width, 10);
    info.modes[0].enabled = true;
    info
}

/// Many questions, none of which may wait.
fn ask_often_without_waiting(display: &Display) -> DisplayInfo {
    let start = Instant::now();
    for _ in 0..100 {
        let _ = display.display_info();
        let _ = display.edid(id(0));
    }
    assert!(start.elapsed() < REPLY_DEADLINE * 50, "each question waits");
    display.display_info()
}

#[test]
fn headless_outputs_lie_side_by_side() {
    let display = two_outputs();
    let info = display.display_info();
    assert_eq!(info.modes[0].rect, rect(0, 0, 100, 50));
    assert_eq!(info.modes[1].rect, rect(100, 0, 30, 70));
    assert!(
        info.modes[..2]
            .iter()
            .all(|mode| mode.enabled && mode.flags == 0)
    );
    assert_eq!(info.modes[2..], DisplayInfo::default().modes[2..]);
    assert_eq!(display.outputs(), 2);
    assert_eq!(Display::new(Vec::new()).outputs(), 0);
    assert_eq!(display.edid(id(1)), display.generate_edid(id(1), &info));
}

#[test]
fn unanswered_question_costs_one_wait_and_its_late_answer_counts() {
    let (display, mut peer) = connected();
    let options = two_outputs().display_info();
    // The first wait is for nothing, the others do not happen, and ask for nothing.
    let start = Instant::now();
    assert_eq!(display.display_info(), options);
    assert!(start.elapsed() >= REPLY_DEADLINE);
    peer.expect(3, &[]);
    let start = Instant::now();
    for _ in 0..100 {
        assert_eq!(display.display_info(), options);
    }
    assert!(start.elapsed() < REPLY_DEADLINE * 50, "each question waits");

    // The late answer, then a peer that answers each question with its number.
    peer.reply_info(&info(1));
    let answering = thread::spawn(move || {
        for number in 2.. {
            let message = peer.message();
            if message.request != 3 {
                return;
            }
            peer.reply_info(&info(number));
        }
    });
    let start = Instant::now();
    let mut answers = Vec::new();
    while answers.len() < 5 {
        let answer = display.display_info();
        assert!(start.elapsed() < PATIENCE, "the late answer is lost");
        if answer != options {
            answers.push(answer.modes[0].rect.width);
        }
    }
    // Each question has its own answer: the late one is in front at most.
    let numbers: Vec<_> = answers
        .into_iter()
        .skip_while(|width| *width == 1)
        .collect();
    assert!(
        numbers.iter().copied().eq((2..).take(numbers.len())),
        "{numbers:?}"
    );
    display.cursor_move(id(0), 0, 0);
    answering.join().unwrap();
}

#[test]
fn unanswered_edid_does_not_harm_display_info() {
    let (display, mut peer) = connected();
    let generated = display.generate_edid(id(1), &two_outputs().display_info());
    assert_eq!(display.edid(id(1)), generated);
    peer.expect(11, &[1]);
    // Neither does it harm, nor is it asked again, nor is one for another scanout mistaken for it.
    let answering = thread::spawn(move || {
        for _ in 0..3 {
            peer.expect(3, &[]);
            peer.reply_info(&info(77));
        }
        peer
    });
    for _ in 0..3 {
        assert_eq!(display.display_info(), info(77));
        assert_eq!(display.edid(id(0)), display.generate_edid(id(0), &info(77)));
    }
    let mut peer = answering.join().unwrap();
    let late = Edid::from_bytes(&[1; 128]).unwrap();
    peer.reply_edid(&late);
    let start = Instant::now();
    while display.link().unwrap().requests.last_edid(id(1)).is_none() {
        assert!(start.elapsed() < PATIENCE, "the late answer is lost");
        thread::yield_now();
    }
    assert!(display.link().unwrap().requests.last_edid(id(0)).is_none());
    let own = Edid::from_bytes(&[2; 256]).unwrap();
    let answer = own.clone();
    let answering = thread::spawn(move || {
        peer.expect(11, &[0]);
        peer.reply_edid(&answer);
        peer
    });
    assert_eq!(display.edid(id(0)), own);
    answering.join().unwrap();
}

#[test]
fn refused_edid_is_generated_for_the_size_that_the_display_gives() {
    let (display, mut peer) = connected();
    let info = info(1600);
    let answering = thread::spawn(move || {
        peer.expect(11, &[0]);
        let mut refusal = [0; 1056];
        refusal[..4].copy_from_slice(&0x1200_u32.to_le_bytes());
        peer.reply(11, &refusal);
        peer.expect(3, &[]);
        peer.reply_info(&info);
        peer.expect(11, &[0]);
        // No header, and a size that cannot be.
        let mut refusal = [0; 1056];
        refusal[24..28].copy_from_slice(&1025_u32.to_le_bytes());
        peer.reply(11, &refusal);
        peer.expect(3, &[]);
        peer.reply_info(&info);
        peer
    });
    let generated = display.generate_edid(id(0), &info);
    assert_ne!(
        generated,
        display.generate_edid(id(0), &two_outputs().display_info())
    );
    assert_eq!(display.edid(id(0)), generated);
    assert_eq!(display.edid(id(0)), generated);
    answering.join().unwrap();
}

#[test]
fn handshake_without_answer_goes_on_without_edid_until_the_answer_comes() {
    let display = two_outputs();
    let (ours, mut peer) = Peer::pair();
    display.attach_socket(ours).unwrap();
    display.set_scanout(id(0), Some(size(4, 4))).unwrap();
    peer.expect(1, &[]);
    peer.expect(7, &[0, 4, 4]);
    peer.reply(1, &3_u64.to_ne_bytes());
    let chosen = peer.message();
    assert_eq!(
        (chosen.request, &chosen.payload[..]),
        (2, &3_u64.to_ne_bytes()[..])
    );
    let edid = Edid::from_bytes(&[3; 128]).unwrap();
    let answer = edid.clone();
    let answering = thread::spawn(move || {
        peer.expect(11, &[1]);
        peer.reply_edid(&answer);
        peer
    });
    assert_eq!(display.edid(id(1)), edid);
    answering.join().unwrap();
}

#[test]
fn display_that_reads_nothing_costs_one_wait_per_kind_of_question() {
    let display = two_outputs();
    let (ours, _peer) = Peer::pair();
    display.attach_socket(ours).unwrap();
    assert_eq!(
        ask_often_without_waiting(&display),
        two_outputs().display_info()
    );
}

#[test]
fn questions_of_two_threads_are_both_answered() {
    let (display, mut peer) = connected();
    let display = Arc::new(display);
    let mut both = info(5);
    both.modes[1] = both.modes[0];
    let stop = Arc::new(AtomicBool::new(false));
    let answering = thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            while !stop.load(Ordering::SeqCst) {
                let message = peer.message();
                match (message.request, message.payload.first()) {
                    (3, _) => peer.reply_info(&both),
                    (11, Some(scanout)) => {
                        peer.reply_edid(&Edid::from_bytes(&[*scanout + 1; 128]).unwrap());
                    }
                    _ => {}
                }
            }
        }
    });
    let asking: Vec<_> = [0_u8, 1, 0]
        .map(|scanout| {
            let display = Arc::clone(&display);
            thread::spawn(move || {
                for _ in 0..50 {
                    assert_eq!(
                        display.edid(id(scanout.into())).as_bytes(),
                        [scanout + 1; 128]
                    );
                    assert_eq!(display.display_info(), both);
                }
            })
        })
        .into();
    asking.into_iter().for_each(|thread| thread.join().unwrap());
    stop.store(true, Ordering::SeqCst);
    display.cursor_move(id(0), 0, 0);
    answering.join().unwrap();
}

#[test]
fn waiting_question_ends_when_the_socket_does() {
    let (display, mut peer) = connected();
    let closing = thread::spawn(move || {
        peer.expect(3, &[]);
        drop(peer);
    });
    assert_eq!(display.display_info(), two_outputs().display_info());
    closing.join().unwrap();
    within_patience(move || drop(display));
}
