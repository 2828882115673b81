//! Shares: bounded amounts that callers hold together. A [`Pool`] bounds the total, and an [`Account`] bounds what one
//! caller holds of it, so that a caller that takes too much is refused while the others still get in.
//!
//! An amount is a number of requests, bytes or connections; the pool does not care. A taken amount is a [`HeldShare`], which
//! returns it when dropped, so nothing is lost on any path. Nothing here waits or locks, except [`Accounts`], which finds the
//! account of a caller by its name.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// The number of accounts at which [`Accounts`] drops those that hold nothing.
const ACCOUNTS_KEPT: usize = 1024;

/// A bounded amount that all callers hold together.
#[derive(Clone, Debug)]
pub(crate) struct Pool(Arc<Counter>);

/// One caller's part of a [`Pool`]. Clones are the same account.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    own: Arc<Counter>,
    pool: Pool,
}

/// The accounts of callers that are known by a key, as peers are by their domain.
pub(crate) struct Accounts<K, A> {
    new: Box<dyn Fn() -> A + Send + Sync>,
    known: Mutex<HashMap<K, Arc<A>>>,
}

/// An amount taken from an account. Dropping it gives it back.
#[derive(Debug)]
#[must_use = "what is held is given back when this is dropped"]
pub(crate) struct HeldShare {
    account: Account,
    amount: usize,
}

/// The reason why nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// The caller has reached its limit.
    Share {
        /// The most that one caller may hold.
        max: usize,
    },
    /// All callers together have reached the limit.
    Pool {
        /// The most that all may hold.
        max: usize,
    },
}

#[derive(Debug)]
struct Counter {
    max: usize,
    held: AtomicUsize,
}

/// A part of a whole, in percent: 1 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Percent(u8);

impl Percent {
    /// The nearest percentage in this range.
    pub(crate) const fn new(percent: u8) -> Self {
        Self(match percent {
            0 => 1,
            1..=100 => percent,
            _ => 100,
        })
    }

    /// The part of a whole, at least 1.
    pub(crate) fn of(self, whole: usize) -> usize {
        let percent = usize::from(self.0);
        (whole / 100 * percent + whole % 100 * percent / 100).max(1)
    }
}

impl Counter {
    fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, held: AtomicUsize::new(0) })
    }

    /// Adds to the held amount, up to the maximum, or beyond it if nothing but `alone` is held.
    fn add(&self, amount: usize, alone: Option<usize>) -> Result<(), usize> {
        self.held
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |held| {
                held.checked_add(amount).filter(|sum| *sum <= self.max || Some(held) == alone)
            })
            .map(|_| ())
            .map_err(|_| self.max)
    }

    fn subtract(&self, amount: usize) {
        self.held.fetch_sub(amount, Ordering::AcqRel);
    }
}

impl Pool {
    /// A pool with at most `max` held at once.
    pub(crate) fn new(max: usize) -> Self {
        Self(Counter::new(max))
    }

    /// A new account that may hold a part of the pool.
    pub(crate) fn account(&self, share: Percent) -> Account {
        Account { own: Counter::new(share.of(self.0.max)), pool: self.clone() }
    }

    /// The most that all accounts may hold.
    pub(crate) fn max(&self) -> usize {
        self.0.max
    }

    /// The amount that all accounts hold now.
    pub(crate) fn held(&self) -> usize {
        self.0.held.load(Ordering::Acquire)
    }
}

impl Account {
    /// Takes an amount. A caller that holds nothing may take more than its share, if the pool has room: otherwise such a
    /// request could never be made.
    ///
    /// # Errors
    /// [`Full`] when the caller or all callers together hold too much; then nothing is taken.
    pub(crate) fn take(&self, amount: usize) -> Result<HeldShare, Full> {
        self.add(amount, 0)?;
        Ok(HeldShare { account: self.clone(), amount })
    }

    fn add(&self, amount: usize, alone: usize) -> Result<(), Full> {
        self.own.add(amount, Some(alone)).map_err(|max| Full::Share { max })?;
        self.pool.0.add(amount, None).map_err(|max| {
            self.own.subtract(amount);
            Full::Pool { max }
        })
    }

    fn subtract(&self, amount: usize) {
        self.own.subtract(amount);
        self.pool.0.subtract(amount);
    }
}

impl HeldShare {
    /// Takes more, until `amount` is held; holding more already is not an error.
    ///
    /// # Errors
    /// [`Full`] as for [`Account::take`]; then the held amount stays the same.
    pub(crate) fn grow_to(&mut self, amount: usize) -> Result<(), Full> {
        let missing = amount.saturating_sub(self.amount);
        if missing > 0 {
            self.account.add(missing, self.amount)?;
            self.amount = amount;
        }
        Ok(())
    }
}

impl Drop for HeldShare {
    fn drop(&mut self) {
        self.account.subtract(self.amount);
    }
}

impl<K: Eq + Hash + Clone, A> Accounts<K, A> {
    /// A set without accounts; `new` makes one when its caller is first seen.
    pub(crate) fn new(new: impl Fn() -> A + Send + Sync + 'static) -> Self {
        Self { new: Box::new(new), known: Mutex::default() }
    }

    /// The account of a caller. It stays the same for as long as it is in use.
    pub(crate) fn of(&self, key: &K) -> Arc<A> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(account) = known.get(key) {
            return Arc::clone(account);
        }
        if known.len() >= ACCOUNTS_KEPT {
            known.retain(|_, account| Arc::strong_count(account) > 1);
        }
        let account = Arc::new((self.new)());
        known.insert(key.clone(), Arc::clone(&account));
        account
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Account {
        /// The amount that the caller holds now.
        fn held(&self) -> usize {
            self.own.held.load(Ordering::Acquire)
        }
    }

    impl HeldShare {
        /// The held amount.
        fn amount(&self) -> usize {
            self.amount
        }
    }

    fn percent(percent: u8) -> Percent {
        Percent::new(percent)
    }

    #[test]
    fn a_caller_takes_no_more_than_its_share() {
        let pool = Pool::new(100);
        let (greedy, modest) = (pool.account(percent(75)), pool.account(percent(75)));
        let held: Vec<HeldShare> = (0..75).map(|_| greedy.take(1).unwrap()).collect();
        assert_eq!(greedy.take(1).unwrap_err(), Full::Share { max: 75 });
        // Others still get in, up to what is left.
        let rest = modest.take(25).unwrap();
        assert_eq!(modest.take(1).unwrap_err(), Full::Pool { max: 100 });
        assert_eq!((greedy.held(), modest.held(), pool.held()), (75, 25, 100));
        drop(held);
        assert_eq!((greedy.held(), pool.held()), (0, 25));
        drop(rest);
        assert_eq!(pool.held(), 0);
    }

    #[test]
    fn a_refusal_takes_nothing() {
        let pool = Pool::new(10);
        let (first, second) = (pool.account(percent(100)), pool.account(percent(100)));
        let _held = first.take(8).unwrap();
        for _ in 0..3 {
            assert_eq!(second.take(3).unwrap_err(), Full::Pool { max: 10 });
        }
        assert_eq!((second.held(), pool.held()), (0, 8));
        assert_eq!(second.take(usize::MAX).unwrap_err(), Full::Pool { max: 10 });
        let mut growing = second.take(1).unwrap();
        assert_eq!(growing.grow_to(3), Err(Full::Pool { max: 10 }));
        assert_eq!(growing.amount(), 1);
        growing.grow_to(2).unwrap();
        growing.grow_to(1).unwrap();
        assert_eq!((growing.amount(), pool.held()), (2, 10));
        drop(growing);
        assert_eq!((second.held(), pool.held()), (0, 8));
    }

    #[test]
    fn who_holds_nothing_else_may_hold_one_amount_that_is_larger_than_a_share() {
        let pool = Pool::new(100);
        let account = pool.account(percent(10));
        let mut first = account.take(40).unwrap();
        first.grow_to(60).unwrap();
        assert_eq!(account.take(1).unwrap_err(), Full::Share { max: 10 });
        assert_eq!(first.grow_to(101), Err(Full::Pool { max: 100 }));
        drop(first);
        let (_small, mut second) = (account.take(1).unwrap(), account.take(1).unwrap());
        assert_eq!(second.grow_to(10), Err(Full::Share { max: 10 }));
        second.grow_to(9).unwrap();
    }

    #[test]
    fn a_part_is_never_nothing_and_never_more_than_the_whole() {
        for (part, whole, expected) in [
            (1, 1, 1),
            (50, 1, 1),
            (75, 4096, 3072),
            (12, 4096, 491),
            (100, usize::MAX, usize::MAX),
            (0, 100, 1),
            (200, 100, 100),
        ] {
            assert_eq!(percent(part).of(whole), expected, "{part} % of {whole}");
        }
    }

    #[test]
    fn an_account_stays_the_same_while_somebody_holds_of_it() {
        let pool = Pool::new(1 << 20);
        let accounts = Accounts::new({
            let pool = pool.clone();
            move || pool.account(percent(1))
        });
        let kept = accounts.of(&usize::MAX);
        let held = kept.take(7).unwrap();
        for key in 0..3 * ACCOUNTS_KEPT {
            let _ = accounts.of(&key);
        }
        assert_eq!(accounts.of(&usize::MAX).held(), 7);
        assert!(accounts.known.lock().unwrap().len() <= ACCOUNTS_KEPT + 1);
        drop(held);
        assert_eq!(pool.held(), 0);
    }

    #[test]
    fn callers_at_once_never_hold_more_than_there_is() {
        let pool = Pool::new(64);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let (account, pool) = (pool.account(percent(50)), pool.clone());
                scope.spawn(move || {
                    for amount in (1..40).cycle().take(20_000) {
                        if let Ok(held) = account.take(amount) {
                            assert!(pool.held() <= 64 && account.held() <= 39);
                            drop(held);
                        }
                    }
                });
            }
        });
        assert_eq!(pool.held(), 0);
    }
}
