//! Frames on a serial line: COBS with a zero byte as delimiter (Cheshire and Baker, 1999) around
//! the frame and its CRC-32. The CRC tells noise from a wrong key; the tag inside proves the rest.

use super::FRAME_MAX;
use crc::{CRC_32_ISO_HDLC, Crc};

const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);
/// Longest encoded frame with its delimiters.
pub const LINE_MAX: usize = FRAME_MAX + 4 + (FRAME_MAX + 4) / 254 + 3;

/// The bytes to write for one frame. The leading zero ends whatever half frame stood before.
pub fn encode_line(frame: &[u8]) -> Vec<u8> {
    let mut inner = frame.to_vec();
    inner.extend_from_slice(&CRC.checksum(frame).to_be_bytes());
    let mut line = vec![0];
    line.extend_from_slice(&cobs::encode_vec(&inner));
    line.push(0);
    line
}

/// Finds frames in a stream of bytes: garbage in, frames or counted noise out.
#[derive(Clone, Debug, Default)]
pub struct Deframer {
    buffer: Vec<u8>,
    /// More came than a frame can be: ignored up to the next delimiter.
    overrun: bool,
    /// A delimiter was seen; before the first one stands the end of something.
    begun: bool,
    /// Pieces that were no frame.
    pub noise: u64,
}

impl Deframer {
    /// Takes in what was read; gives the frames that are complete.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        for byte in bytes {
            if *byte != 0 {
                if self.buffer.len() >= LINE_MAX {
                    self.overrun = true;
                } else {
                    self.buffer.push(*byte);
                }
                continue;
            }
            let piece = std::mem::take(&mut self.buffer);
            let overrun = std::mem::take(&mut self.overrun);
            let whole = std::mem::replace(&mut self.begun, true);
            if piece.is_empty() && !overrun {
                continue;
            }
            match decode(&piece).filter(|_| !overrun) {
                Some(frame) => frames.push(frame),
                None => self.noise += u64::from(whole || overrun),
            }
        }
        frames
    }
}

fn decode(piece: &[u8]) -> Option<Vec<u8>> {
    let mut inner = cobs::decode_vec(piece).ok()?;
    let at = inner.len().checked_sub(4)?;
    let crc = inner.split_off(at);
    (CRC.checksum(&inner).to_be_bytes() == crc[..]).then_some(inner)
}

/// How long a frame of so many bytes takes on the line (10 bits a byte: 8N1).
pub fn line_time(frame: usize, baud: u32) -> std::time::Duration {
    let bytes = (frame + 4 + (frame + 4) / 254 + 3) as u64;
    std::time::Duration::from_nanos(bytes * 10 * 1_000_000_000 / u64::from(baud.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn frames_come_through_any_garbage_and_any_cut(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 1..5),
            garbage in prop::collection::vec(any::<u8>(), 0..300),
            step in 1usize..50,
        ) {
            let mut stream = garbage;
            for frame in &frames {
                stream.extend(encode_line(frame));
            }
            let mut deframer = Deframer::default();
            let got: Vec<Vec<u8>> = stream.chunks(step).flat_map(|c| deframer.push(c)).collect();
            prop_assert!(got.ends_with(&frames));
        }
    }

    #[test]
    fn endless_garbage_is_bounded_and_the_next_frame_is_found() {
        let mut deframer = Deframer::default();
        for _ in 0..1000 {
            assert!(deframer.push(&[7; 100]).is_empty());
        }
        assert!(deframer.buffer.len() <= LINE_MAX);
        assert_eq!(deframer.push(&encode_line(b"hello")), vec![b"hello".to_vec()]);
        assert_eq!(deframer.noise, 1);
    }

    /// Goal: who opens a line in the middle of a frame does not complain about its cable.
    #[test]
    fn the_end_of_a_frame_begun_earlier_is_no_noise() {
        let mut deframer = Deframer::default();
        let line = encode_line(b"hello");
        assert!(deframer.push(&line[4..]).is_empty());
        assert_eq!((deframer.push(&line).len(), deframer.noise), (1, 0));
        assert!(deframer.push(&line[4..]).is_empty());
        assert_eq!(deframer.noise, 1);
    }

    #[test]
    fn golden_bytes() {
        assert_eq!(encode_line(&[1, 0, 2]), [0, 2, 1, 6, 2, 0x10, 0x8d, 0xd2, 0x09, 0]);
    }
}
