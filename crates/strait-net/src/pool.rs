//! Buffers that are used again, and the account of the memory they hold.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};

/// The smallest buffer that is kept; smaller ones are the allocator's business.
const LEAST: usize = 16 * 1024;
/// Steps between two powers of two that capacities are rounded up to: answers differ a little each time, and a buffer that
/// is a page too small for the next one would be of no use.
const STEPS: usize = 8;

/// Where the buffers of bulk answers come from and return to.
///
/// [`held`](Self::held) is exact: a buffer counts from the moment it is made until the last slice of it is
/// dropped, however small that slice is. So it is what a memory budget has to be compared with. A few free buffers are
/// kept, while they and those in use are within the pool's limit together: what one answer gave back, the next one takes,
/// and the system does not have to clear its pages again. Clones share the pool.
#[derive(Clone)]
pub struct Pool(Arc<Shared>);

struct Shared {
    held: AtomicUsize,
    idle: Mutex<Idle>,
    keep: usize,
    limit: usize,
}

/// Free buffers by capacity.
#[derive(Default)]
struct Idle {
    buffers: BTreeMap<usize, Vec<BytesMut>>,
    bytes: usize,
    /// The fewest bytes that lay here since [`Pool::settle`].
    spare: usize,
}

impl Idle {
    /// Takes the smallest buffer of one of these capacities.
    fn pop(&mut self, capacities: RangeInclusive<usize>) -> Option<BytesMut> {
        let (&size, buffers) = self.buffers.range_mut(capacities).next()?;
        let buffer = buffers.pop();
        if buffers.is_empty() {
            self.buffers.remove(&size);
        }
        self.bytes -= buffer.as_ref().map_or(0, |_| size);
        self.spare = self.spare.min(self.bytes);
        buffer
    }

    /// Takes buffers until at most `bytes` are left.
    fn shrink(&mut self, bytes: usize) -> Vec<BytesMut> {
        let mut out = Vec::new();
        while self.bytes > bytes
            && let Some(buffer) = self.pop(0..=usize::MAX)
        {
            out.push(buffer);
        }
        out
    }
}

impl Pool {
    /// An empty pool. It keeps at most `keep` bytes of free buffers, and none where all together would be more than
    /// `limit` bytes; it does not refuse buffers beyond.
    pub fn new(keep: usize, limit: usize) -> Self {
        Self(Arc::new(Shared {
            held: AtomicUsize::new(0),
            idle: Mutex::default(),
            keep,
            limit,
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
        Bytes::from_owner(Adopted {
            _charge: self.charge(bytes.len()),
            bytes,
        })
    }

    /// Counts `bytes` of memory that somebody else holds, until the result is dropped.
    pub fn charge(&self, bytes: usize) -> Charge {
        self.0.held.fetch_add(bytes, Ordering::Relaxed);
        Charge {
            pool: self.clone(),
            bytes,
        }
    }

    /// Gives the memory of all free buffers back to the allocator.
    pub fn trim(&self) {
        let free = self.lock().shrink(0);
        drop(free);
    }

    /// Gives back what has not been needed since the last call. Called now and then, it returns the memory of a burst
    /// and leaves a steady flow its buffers.
    pub fn settle(&self) {
        let mut idle = self.lock();
        let needed = idle.bytes - idle.spare;
        let free = idle.shrink(needed);
        idle.spare = idle.bytes;
        drop(idle);
        drop(free);
    }

    fn take(&self, capacity: usize) -> BytesMut {
        if capacity < LEAST {
            return BytesMut::with_capacity(capacity);
        }
        let step = (capacity.next_power_of_two() / 2 / STEPS).max(LEAST);
        let rounded = capacity.div_ceil(step) * step;
        let mut idle = self.lock();
        if let Some(buffer) = idle.pop(rounded..=rounded.saturating_mul(2)) {
            return buffer;
        }
        let room = self.0.limit.saturating_sub(self.held() + rounded);
        let free = idle.shrink(room);
        drop(idle);
        drop(free);
        BytesMut::with_capacity(rounded)
    }

    fn give_back(&self, mut buffer: BytesMut) {
        let size = buffer.capacity();
        if size < LEAST {
            return;
        }
        buffer.clear();
        let mut idle = self.lock();
        let room = self.0.limit.saturating_sub(self.held()).min(self.0.keep);
        if idle.bytes + size <= room {
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

    /// Where the bytes go. What it grows by through this is not in the pool's account: whoever fills it asked for enough.
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

/// Memory in a pool's account that is none of its buffers.
#[derive(Debug)]
pub struct Charge {
    pool: Pool,
    bytes: usize,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.pool.0.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

struct Adopted {
    bytes: Bytes,
    _charge: Charge,
}

impl AsRef<[u8]> for Adopted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
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
        let pool = Pool::new(1 << 20, 1 << 20);
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
        let pool = Pool::new(450_000, 600_000);
        let first = filled(&pool, 190_000);
        let address = first.as_ptr();
        drop(first);
        let second = filled(&pool, 194_000);
        assert_eq!(second.as_ptr(), address, "a little more fits too");
        let more: Vec<_> = (0..4).map(|_| filled(&pool, 190_000)).collect();
        drop((second, more));
        assert!((300_000..=450_000).contains(&pool.idle()), "{pool:?}");
        let large = filled(&pool, 500_000);
        assert!(pool.held() + pool.idle() <= 600_000, "{pool:?}");
        drop(large);
        pool.trim();
        assert_eq!(pool.idle(), 0);
    }

    #[test]
    fn what_a_burst_left_goes_and_what_is_used_stays() {
        let pool = Pool::new(1 << 24, 1 << 24);
        drop((0..8).map(|_| filled(&pool, 100_000)).collect::<Vec<_>>());
        pool.settle();
        let all = pool.idle();
        drop((filled(&pool, 100_000), filled(&pool, 100_000)));
        pool.settle();
        assert_eq!(pool.idle() * 4, all, "two of eight were needed");
        pool.settle();
        assert_eq!(pool.idle(), 0);
    }

    #[test]
    fn a_small_answer_does_not_take_a_large_buffer() {
        let pool = Pool::new(1 << 24, 1 << 24);
        drop(filled(&pool, 4 << 20));
        let small = filled(&pool, 20_000);
        assert!(pool.held() < 100_000, "{}", pool.held());
        drop(small);
    }

    #[test]
    fn what_was_made_elsewhere_counts_too() {
        let pool = Pool::new(0, 0);
        let bytes = pool.adopt(Bytes::from(vec![1; 500]));
        let slice = bytes.slice(..1);
        drop(bytes);
        assert_eq!(pool.held(), 500);
        drop(slice);
        assert_eq!(pool.held(), 0);
    }
}
