//! The buffers of a thread, through which all its connections read and write: between two polls they are empty.

use std::cell::RefCell;

thread_local! {
    static READ: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static WRITE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A write buffer that a large frame has grown beyond this is given back.
const KEEP: usize = 128 * 1024;

/// Lends a buffer to read into, with whatever an earlier use left in it.
pub(crate) fn read<R>(bytes: usize, body: impl FnOnce(&mut [u8]) -> R) -> R {
    READ.with_borrow_mut(|buffer| {
        if buffer.len() < bytes {
            buffer.resize(bytes, 0);
        }
        body(buffer.get_mut(..bytes).unwrap_or_default())
    })
}

/// Lends an empty buffer to gather in what is to be written.
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
