//! Buffers that are used again, and the account of the memory they hold.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};

/// The smallest buffer that is kept; smaller ones are the allocator's business.
const LEAST: usize = 16 * 1024;

/// Where the buffers of bulk answers come from and return to.
///
/// [`held`](Self::held) is exact: a buffer counts from the moment it is made until the last slice of it is
/// dropped, however small that slice is. So it is what a memory budget has to be compared with. Clones share
/// the pool.
#[derive(Clone)]
pub struct Pool(Arc<Shared>);

struct Shared {
    held: AtomicUsize,
    idle: Mutex<Idle>,
    keep: usize,
}

/// Free buffers by capacity.
#[derive(Default)]
struct Idle {
    buffers: BTreeMap<usize, Vec<BytesMut>>,
    bytes: usize,
}

impl Pool {
    /// An empty pool that keeps at most `keep` bytes of free buffers.
    pub fn new(keep: usize) -> Self {
        Self(Arc::new(Shared {
            held: AtomicUsize::new(0),
            idle: Mutex::default(),
            keep,
        }))
    }

    /// Bytes of all buffers in use.
    pub fn held(&self) -> usize {
        self.0.held.load(Ordering::Relaxed)
    }

    /// Bytes of free buffers kept for later.
    pub fn idle(&self) -> usize {
        self.lock().bytes
    }

    /// An empty buffer with room for `capacity` bytes.
    pub fn buffer(&self, capacity: usize) -> Buffer {
        Buffer::new(Some(self), capacity)
    }

    /// Counts `bytes`, made elsewhere, until the last slice of the result is dropped.
    pub fn adopt(&self, bytes: Bytes) -> Bytes {
        self.0.held.fetch_add(bytes.len(), Ordering::Relaxed);
        Bytes::from_owner(Adopted {
            pool: self.clone(),
            bytes,
        })
    }

    /// Gives the memory of free buffers back to the allocator.
    pub fn trim(&self) {
        let buffers = std::mem::take(&mut *self.lock());
        drop(buffers);
    }

    fn take(&self, capacity: usize) -> BytesMut {
        if capacity < LEAST {
            return BytesMut::with_capacity(capacity);
        }
        // Sizes of answers differ a little each time: rounding makes them meet again.
        let rounded = capacity.div_ceil(LEAST) * LEAST;
        let mut idle = self.lock();
        let fitting = idle
            .buffers
            .range_mut(rounded..=rounded.saturating_mul(2))
            .next();
        let Some((&size, buffers)) = fitting else {
            drop(idle);
            return BytesMut::with_capacity(rounded);
        };
        let taken = buffers.pop();
        if buffers.is_empty() {
            idle.buffers.remove(&size);
        }
        match taken {
            Some(buffer) => {
                idle.bytes -= size;
                buffer
            }
            None => BytesMut::with_capacity(rounded),
        }
    }

    fn give_back(&self, mut buffer: BytesMut) {
        let size = buffer.capacity();
        if size < LEAST {
            return;
        }
        buffer.clear();
        let mut idle = self.lock();
        if idle.bytes + size <= self.0.keep {
            idle.bytes += size;
            idle.buffers.entry(size).or_default().push(buffer);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Idle> {
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("held", &self.held())
            .field("idle", &self.idle())
            .finish()
    }
}

/// A buffer being filled; from a pool, or from the allocator where its connection has none.
#[derive(Debug)]
pub struct Buffer {
    bytes: BytesMut,
    pool: Option<Pool>,
    counted: usize,
}

impl Buffer {
    /// An empty buffer with room for `capacity` bytes.
    pub(crate) fn new(pool: Option<&Pool>, capacity: usize) -> Self {
        let bytes = match pool {
            Some(pool) => pool.take(capacity),
            None => BytesMut::with_capacity(capacity),
        };
        let mut buffer = Self {
            bytes,
            pool: pool.cloned(),
            counted: 0,
        };
        buffer.count();
        buffer
    }

    /// Where the bytes go. Memory beyond the capacity asked for is not counted.
    pub fn bytes(&mut self) -> &mut BytesMut {
        &mut self.bytes
    }

    /// Makes room for `more` bytes when the buffer is full.
    pub(crate) fn grow(&mut self, more: usize) {
        if self.bytes.len() == self.bytes.capacity() {
            self.bytes.reserve(more);
            self.count();
        }
    }

    fn count(&mut self) {
        if let Some(pool) = &self.pool {
            let capacity = self.bytes.capacity();
            pool.0
                .held
                .fetch_add(capacity - self.counted, Ordering::Relaxed);
            self.counted = capacity;
        }
    }

    /// The bytes, to be shared. Their memory returns to the pool with the last slice.
    pub fn freeze(mut self) -> Bytes {
        if self.pool.is_some() {
            Bytes::from_owner(self)
        } else {
            std::mem::take(&mut self.bytes).freeze()
        }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(pool) = &self.pool {
            pool.0.held.fetch_sub(self.counted, Ordering::Relaxed);
            pool.give_back(std::mem::take(&mut self.bytes));
        }
    }
}

struct Adopted {
    pool: Pool,
    bytes: Bytes,
}

impl AsRef<[u8]> for Adopted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Adopted {
    fn drop(&mut self) {
        self.pool
            .0
            .held
            .fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(pool: &Pool, size: usize) -> Bytes {
        let mut buffer = Buffer::new(Some(pool), size);
        buffer.bytes().resize(size, 7);
        buffer.freeze()
    }

    #[test]
    fn a_buffer_counts_until_its_last_slice_is_gone() {
        let pool = Pool::new(1 << 20);
        let bytes = filled(&pool, 100_000);
        let held = pool.held();
        assert!((100_000..150_000).contains(&held), "{held}");
        let slice = bytes.slice(5..6);
        drop(bytes);
        assert_eq!(pool.held(), held, "one byte pins the whole buffer");
        drop(slice);
        assert_eq!((pool.held(), pool.idle()), (0, held));
    }

    #[test]
    fn memory_is_used_again_and_not_hoarded() {
        let pool = Pool::new(256 * 1024);
        let first = filled(&pool, 200_000);
        let address = first.as_ptr();
        drop(first);
        let second = filled(&pool, 190_000);
        assert_eq!(second.as_ptr(), address);
        let third = filled(&pool, 190_000);
        drop((second, third));
        assert!(pool.idle() <= 256 * 1024, "{}", pool.idle());
        pool.trim();
        assert_eq!(pool.idle(), 0);
    }

    #[test]
    fn a_small_answer_does_not_take_a_large_buffer() {
        let pool = Pool::new(1 << 24);
        drop(filled(&pool, 4 << 20));
        let small = filled(&pool, 20_000);
        assert!(pool.held() < 100_000, "{}", pool.held());
        drop(small);
    }

    #[test]
    fn what_was_made_elsewhere_counts_too() {
        let pool = Pool::new(0);
        let bytes = pool.adopt(Bytes::from(vec![1; 500]));
        let slice = bytes.slice(..1);
        drop(bytes);
        assert_eq!(pool.held(), 500);
        drop(slice);
        assert_eq!(pool.held(), 0);
    }
}
