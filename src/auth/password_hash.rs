//! Password hashes (Argon2id, RFC 9106), and the limits on their cost.

use std::fmt;

use argon2::password_hash::phc::{Output, PasswordHash as PhcString, Salt};
use argon2::{Algorithm, Argon2, Block, Params, PasswordHasher, Version};

use super::error::AuthError;

/// Most memory in KiB for one hash. Logins are checked one at a time, so an expensive hash
/// delays all others, and the memory stays allocated.
const MAX_MEMORY_KIB: u32 = 256 << 10;

/// Most KiB that all passes of one hash may fill: about one second of work.
const MAX_WORK_KIB: u64 = 1 << 20;

/// The memory in which hashes are computed, as large as the most expensive hash so far.
#[derive(Default)]
pub(super) struct HashBuffer(Vec<Block>);

impl HashBuffer {
    /// Reserves this many KiB of address space, so that a hash does not run out of memory
    /// later. Pages take memory only once they are used.
    pub(super) fn reserve(&mut self, kibibytes: usize) -> Result<(), AuthError> {
        let missing = kibibytes.saturating_sub(self.0.len());
        let reserved = self.0.try_reserve_exact(missing);
        reserved.map_err(|_| AuthError::OutOfMemory)
    }

    /// This many KiB of the buffer, which grows if it is smaller.
    fn blocks(&mut self, kibibytes: usize) -> Result<&mut [Block], AuthError> {
        self.reserve(kibibytes)?;
        if self.0.len() < kibibytes {
            self.0.resize(kibibytes, Block::default());
        }
        self.0.get_mut(..kibibytes).ok_or(AuthError::OutOfMemory)
    }
}

impl fmt::Debug for HashBuffer {
    /// Without the content.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "HashBuffer({} KiB)", self.0.len())
    }
}

/// A hash in the users file: Argon2id (RFC 9106) of a password.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct PasswordHash {
    params: Params,
    salt: Salt,
    output: Output,
}

impl fmt::Debug for PasswordHash {
    /// Without the hash.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("PasswordHash")
    }
}

impl PasswordHash {
    /// Parses `$argon2id$v=19$m=19456,t=2,p=1$SALT$HASH`. All fields are required, in the
    /// canonical form: then a check can fail only because the password is wrong.
    ///
    /// # Errors
    ///
    /// The reason, as a predicate after "the hash of alice". It never repeats the text,
    /// because an operator may have written the password in place of the hash.
    pub(super) fn parse(text: &str) -> Result<PasswordHash, String> {
        if !text.starts_with("$argon2id$") {
            return Err("does not begin with $argon2id$".to_owned());
        }
        let invalid = || "is not a valid Argon2id hash".to_owned();
        let parsed = PhcString::new(text).map_err(|_| invalid())?;
        let names: Vec<_> = parsed.params.iter().map(|(name, _)| name).collect();
        let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
        let is_canonical = parsed.version == Some(Version::V0x13.into())
            && names == ["m", "t", "p"]
            && parsed.to_string() == text;
        let params = Params::try_from(&parsed).map_err(|_| invalid())?;
        let (Some(salt), Some(output), true) = (parsed.salt, parsed.hash, is_canonical) else {
            return Err(invalid());
        };
        let work = u64::from(params.m_cost()) * u64::from(params.t_cost());
        if params.m_cost() > MAX_MEMORY_KIB || work > MAX_WORK_KIB {
            return Err(format!(
                "costs too much: m must be at most {MAX_MEMORY_KIB}, and m times t at most \
                 {MAX_WORK_KIB}"
            ));
        }
        Ok(PasswordHash {
            params,
            salt,
            output,
        })
    }

    /// The memory in KiB that computing the hash takes.
    pub(super) fn memory_kib(&self) -> usize {
        self.params.block_count()
    }

    /// Is this the hash of this password? Takes the same time for a wrong password as for
    /// the right one: `Output` compares in constant time.
    ///
    /// # Errors
    ///
    /// There is not enough memory.
    pub(super) fn verify(
        &self,
        password: &[u8],
        buffer: &mut HashBuffer,
    ) -> Result<bool, AuthError> {
        let blocks = buffer.blocks(self.memory_kib())?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, self.params.clone());
        let mut output = [0; Output::MAX_LENGTH];
        let output = output.get_mut(..self.output.len()).unwrap_or_default();
        let hashed = argon2.hash_password_into_with_memory(password, &self.salt, output, blocks);
        // `parse` has excluded all errors.
        Ok(hashed.is_ok() && Output::new(output).is_ok_and(|output| output == self.output))
    }
}

/// The hash of a new password as text, with a new salt, and the cost that OWASP recommends
/// (19 MiB, 2 passes).
///
/// # Errors
///
/// A sentence: the system has no memory, or no random numbers.
pub(super) fn hash_password(password: &[u8]) -> Result<String, String> {
    let hash: PhcString = Argon2::default()
        .hash_password(password)
        .map_err(|error| format!("the password cannot be hashed: {error}"))?;
    Ok(hash.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_matches_exactly_one_password() {
        let mut buffer = HashBuffer::default();
        for password in [&b"secret"[..], b"", b"\0\xFF", &[b'x'; 255]] {
            let text = hash_password(password).expect("a hash");
            let hash = PasswordHash::parse(&text).expect(&text);
            assert_eq!(hash.verify(password, &mut buffer), Ok(true));
            let longer = [password, b"x"].concat();
            assert_eq!(hash.verify(&longer, &mut buffer), Ok(false));
            // Each hash has its own salt.
            assert_ne!(hash_password(password).expect("a hash"), text);
        }
        assert_eq!(buffer.0.len(), 19 << 10);
    }

    #[test]
    fn hashes_of_other_programs_are_valid_and_altered_ones_are_not() {
        // Made by the reference implementation: argon2 somesalt -id -t 2 -m 16 -p 1.
        let reference = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ\
                      $CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        let hash = PasswordHash::parse(reference).expect("a hash");
        assert_eq!(
            hash.verify(b"password", &mut HashBuffer::default()),
            Ok(true)
        );
        for (from, to, expected) in [
            ("argon2id", "argon2i", "does not begin"),
            ("$argon2id", "argon2id", "does not begin"),
            ("v=19", "v=16", "not a valid"),
            ("v=19$", "", "not a valid"),
            ("m=65536,t=2,p=1", "t=2,m=65536,p=1", "not a valid"),
            ("m=65536,", "", "not a valid"),
            ("m=65536", "m=065536", "not a valid"),
            (",p=1", ",p=1,keyid=QUJD", "not a valid"),
            (",p=1", ",p=0", "not a valid"),
            ("m=65536", "m=7", "not a valid"),
            ("c29tZXNhbHQ", "c2", "not a valid"),
            ("$CTFh", "$!TFh", "not a valid"),
            (
                "$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
                "",
                "not a valid",
            ),
            ("RPPc", "RPPc$", "not a valid"),
            ("RPPc", "RPPc=", "not a valid"),
            ("m=65536", "m=262145", "costs too much"),
            ("m=65536,t=2", "m=262144,t=5", "costs too much"),
            ("t=2", "t=4294967295", "costs too much"),
        ] {
            let text = reference.replacen(from, to, 1);
            assert_ne!(text, reference);
            let reason = PasswordHash::parse(&text).expect_err(&text);
            assert!(reason.contains(expected), "{text}: {reason}");
        }
        let costly = reference.replace("m=65536,t=2", "m=262144,t=4");
        assert!(PasswordHash::parse(&costly).is_ok());
    }

    #[test]
    fn debug_output_shows_no_hash() {
        let hash = PasswordHash::parse(&hash_password(b"secret").expect("a hash")).expect("a hash");
        let buffer = HashBuffer::default();
        assert_eq!(
            format!("{hash:?} {buffer:?}"),
            "PasswordHash HashBuffer(0 KiB)"
        );
    }
}
