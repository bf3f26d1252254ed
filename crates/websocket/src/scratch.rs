//! The buffers of a thread, through which all its connections read and write. No poll leaves anything in them for another.

use std::cell::RefCell;

thread_local! {
    static READ: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static WRITE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A write buffer is freed if a large frame has made it grow beyond this.
const KEEP: usize = 128 * 1024;

/// Lends the buffer to read into. Its contents are those of an earlier use.
pub(crate) fn read<R>(bytes: usize, body: impl FnOnce(&mut [u8]) -> R) -> R {
    READ.with_borrow_mut(|buffer| {
        if buffer.len() < bytes {
            buffer.resize(bytes, 0);
        }
        body(buffer.get_mut(..bytes).unwrap_or_default())
    })
}

/// Lends the buffer for frames to write, empty.
pub(crate) fn write<R>(body: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    WRITE.with_borrow_mut(|buffer| {
        buffer.clear();
        let result = body(buffer);
        if buffer.capacity() > KEEP {
            *buffer = Vec::new();
        }
        result
    })
}
