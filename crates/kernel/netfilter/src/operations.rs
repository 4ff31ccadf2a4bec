//! Writing, reading and removing, in any dialect.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use trireme_netns::Namespace;

use crate::parts::{Part, damage, print_of, respelled};
use crate::turn::Turn;
use crate::{BackEnd, Damage, Denied, InForce, Look, NetfilterError, Programs, RuleSet, iptables, nft};

/// How often a set is written anew when another program changes the same tables at the same time.
const ATTEMPTS: usize = 5;

/// Spellings that are remembered; a process uses few rule sets.
const REMEMBERED: usize = 64;

/// Writes the rules into the calling thread's namespace, in place of what an older call wrote; does nothing if they
/// stand there as they should.
///
/// What fails leaves everything as it was.
///
/// # Errors
/// [`NetfilterError::Released`] for a value that releases nothing, [`NetfilterError::Taken`] if somebody else uses our
/// names, [`NetfilterError::Missing`] and [`NetfilterError::Failed`] if the programs or the kernel lack something,
/// [`NetfilterError::Contended`] if another program keeps changing the rules, [`NetfilterError::Undo`] if what was
/// written in part cannot be taken back.
pub fn apply(back_end: BackEnd, rule_set: &RuleSet) -> Result<InForce, NetfilterError> {
    Programs::default().apply(back_end, rule_set)
}

/// Tells what is in force in the calling thread's namespace: the first comment of ours that is found there, even if
/// rules around it are missing.
///
/// # Errors
/// [`NetfilterError::Version`] for rules of another version; [`NetfilterError::Missing`], [`NetfilterError::Failed`]
/// and [`NetfilterError::Unreadable`] if they cannot be listed.
pub fn read(back_end: BackEnd) -> Result<Option<InForce>, NetfilterError> {
    Programs::default().read(back_end)
}

/// Tells whether our rules, the jumps to them and the order are exactly what [`apply`] leaves for this set; counters
/// and the rules of others do not count.
///
/// # Errors
/// As [`read`].
pub fn intact(back_end: BackEnd, in_force: &InForce) -> Result<Result<(), Damage>, NetfilterError> {
    Programs::default().intact(back_end, in_force)
}

/// Tells both what [`intact`] and what [`denied`] tell, from one listing.
///
/// # Errors
/// As [`read`].
pub fn look(back_end: BackEnd, in_force: &InForce) -> Result<Look, NetfilterError> {
    Programs::default().look(back_end, in_force)
}

/// Removes our rules, and nothing else; true if there were any.
///
/// Tables and base chains that `iptables-nft` created for them go too if `nft` is installed and nobody else uses them.
/// The empty tables that `iptables-legacy` creates stay: the kernel has no way to remove them.
///
/// # Errors
/// [`NetfilterError::Taken`] if what stands under our names is somebody else's; [`NetfilterError::Missing`],
/// [`NetfilterError::Failed`] and [`NetfilterError::Unreadable`] if it cannot be listed or removed.
pub fn remove(back_end: BackEnd) -> Result<bool, NetfilterError> {
    Programs::default().remove(back_end)
}

/// Packets that the rules in force dropped because of their protocol; zeros if none are in force.
///
/// # Errors
/// As [`read`].
pub fn denied(back_end: BackEnd) -> Result<Denied, NetfilterError> {
    Programs::default().denied(back_end)
}

impl Programs {
    /// [`apply()`] with these programs.
    ///
    /// # Errors
    /// As there.
    pub fn apply(&self, back_end: BackEnd, rule_set: &RuleSet) -> Result<InForce, NetfilterError> {
        rule_set.check()?;
        // Shows as well that programs and kernel know every part, before anything is changed here.
        let mut expected = self.expected(back_end, rule_set)?;
        let _turn = Turn::take()?;
        let mut found = self.list(back_end)?;
        let mut attempts = 0;
        while let Some(damage) = damage(&found.parts(), &expected) {
            if attempts == 1 {
                expected = self.spelled(back_end, rule_set)?.to_vec();
            }
            if let Some(place) = found.stranger() {
                return Err(NetfilterError::Taken { place });
            }
            if attempts == ATTEMPTS {
                return Err(NetfilterError::Contended(damage));
            }
            attempts += 1;
            let written = found.write(self, rule_set);
            let before = std::mem::replace(&mut found, self.list(back_end)?).parts();
            match written {
                // Someone else was faster, and what was to be replaced is not there any more.
                Err(NetfilterError::Failed { .. } | NetfilterError::Undo { .. })
                    if found.parts() != before => {}
                other => other?,
            }
        }
        Ok(InForce { rule_set: *rule_set, fingerprint: print_of(&found.parts()) })
    }

    /// [`read()`] with these programs.
    ///
    /// # Errors
    /// As there.
    pub fn read(&self, back_end: BackEnd) -> Result<Option<InForce>, NetfilterError> {
        let found = self.list(back_end)?;
        let Some(comment) = found.comment() else { return Ok(None) };
        let rule_set = RuleSet::from_comment(&comment)?;
        Ok(Some(InForce { rule_set, fingerprint: print_of(&found.parts()) }))
    }

    /// [`intact()`] with these programs.
    ///
    /// # Errors
    /// As there.
    pub fn intact(
        &self,
        back_end: BackEnd,
        in_force: &InForce,
    ) -> Result<Result<(), Damage>, NetfilterError> {
        Ok(self.look(back_end, in_force)?.damage.map_or(Ok(()), Err))
    }

    /// [`look()`] with these programs.
    ///
    /// # Errors
    /// As there.
    pub fn look(&self, back_end: BackEnd, in_force: &InForce) -> Result<Look, NetfilterError> {
        let expected = self.expected(back_end, &in_force.rule_set)?;
        let listed = self.list(back_end)?;
        let (found, denied) = (listed.parts(), listed.denied());
        let damage = match damage(&found, &expected) {
            None => None,
            Some(_) => damage(&found, &self.spelled(back_end, &in_force.rule_set)?),
        };
        Ok(Look { damage, denied })
    }

    /// [`remove()`] with these programs.
    ///
    /// # Errors
    /// As there.
    pub fn remove(&self, back_end: BackEnd) -> Result<bool, NetfilterError> {
        let _turn = Turn::take()?;
        let found = self.list(back_end)?;
        if let Some(place) = found.stranger() {
            return Err(NetfilterError::Taken { place });
        }
        if found.absent() {
            return Ok(false);
        }
        found.remove(self)?;
        Ok(true)
    }

    /// [`denied()`] with these programs.
    ///
    /// # Errors
    /// As there.
    pub fn denied(&self, back_end: BackEnd) -> Result<Denied, NetfilterError> {
        Ok(self.list(back_end)?.denied())
    }

    /// What these programs list after the set was written, as they are known to spell sets that differ in what is
    /// released only.
    ///
    /// Programs of versions that spell otherwise than expected are found out by [`spelled`](Self::spelled).
    fn expected(&self, back_end: BackEnd, rule_set: &RuleSet) -> Result<Vec<Part>, NetfilterError> {
        let model = RuleSet { released: rule_set.field.max(), ..*rule_set };
        let parts = self.spelled(back_end, &model)?;
        Ok(respelled(&parts, back_end.spelling(), &model, rule_set))
    }

    /// What these programs list after the set was written into an untouched namespace.
    ///
    /// Programs of different versions spell the same rule differently; so what is found is never compared with what
    /// was written.
    pub(crate) fn spelled(
        &self,
        back_end: BackEnd,
        rule_set: &RuleSet,
    ) -> Result<Arc<[Part]>, NetfilterError> {
        type Spellings = HashMap<(Programs, BackEnd, RuleSet), Arc<[Part]>>;
        static SPELLINGS: LazyLock<Mutex<Spellings>> = LazyLock::new(Mutex::default);
        let key = (self.clone(), back_end, *rule_set);
        let known = SPELLINGS.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let parts: Arc<[Part]> = Namespace::anonymous()?
            .run(|| {
                self.list(back_end)?.write(self, rule_set)?;
                Ok::<_, NetfilterError>(self.list(back_end)?.parts().into())
            })
            .map_err(NetfilterError::from)
            .flatten()?;
        let mut spellings = SPELLINGS.lock().unwrap_or_else(PoisonError::into_inner);
        if spellings.len() >= REMEMBERED {
            spellings.clear();
        }
        spellings.insert(key, Arc::clone(&parts));
        Ok(parts)
    }

    fn list(&self, back_end: BackEnd) -> Result<Box<dyn Listed>, NetfilterError> {
        Ok(match back_end {
            BackEnd::Nft => Box::new(nft::Table::list(self)?),
            BackEnd::IptablesNft => Box::new(iptables::Tables::list(self, iptables::Variant::Nft)?),
            BackEnd::IptablesLegacy => Box::new(iptables::Tables::list(self, iptables::Variant::Legacy)?),
        })
    }
}

/// What a namespace was found to have, and how to change it from there.
pub(crate) trait Listed {
    /// Ours.
    fn parts(&self) -> Vec<Part>;
    /// The first comment of ours.
    fn comment(&self) -> Option<String>;
    /// What stands under a name of ours and is not.
    fn stranger(&self) -> Option<String>;
    /// True if nothing is ours.
    fn absent(&self) -> bool;
    /// Packets dropped because of their protocol.
    fn denied(&self) -> Denied;
    /// Puts the rules in place of ours.
    fn write(&self, programs: &Programs, rule_set: &RuleSet) -> Result<(), NetfilterError>;
    /// Takes ours away.
    fn remove(&self, programs: &Programs) -> Result<(), NetfilterError>;
}
