//! Randomness.

use rand::Rng;

pub trait Entropy: Send + Sync + 'static {
    fn random_u128(&self) -> u128;

    fn random_u64(&self) -> u64 {
        self.random_u128() as u64
    }

    /// 32 hexadecimal digits, for names that must be unique.
    fn random_name(&self) -> String {
        format!("{:032x}", self.random_u128())
    }
}

/// The process's own generator, seeded by the operating system.
#[derive(Debug)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn random_u128(&self) -> u128 {
        rand::rng().random()
    }
}
