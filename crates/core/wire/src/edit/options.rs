use super::{Edit, EditError};
use crate::ParseError;
use crate::bytes::{array, put};
use crate::tcp::{self, TcpOption, options};

/// What happens to an option that goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionEdit {
    /// Its bytes become padding; the header keeps its length.
    Blank,
    /// Its bytes go and the header shrinks to the next multiple of four.
    Remove,
}

/// Which options an edit is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionSelector {
    /// All of a kind.
    Kind(u8),
    /// Those of the experimental kinds 253 and 254 with an experiment id (RFC 6994).
    Experiment(u16),
    /// Fast Open cookies and requests for one, kind 34 and experimental.
    FastOpen,
}

impl OptionSelector {
    fn selects(self, option: &TcpOption<'_>) -> bool {
        match self {
            Self::Kind(kind) => option.kind == kind,
            Self::Experiment(id) => {
                matches!(option.kind, options::EXPERIMENT_1 | options::EXPERIMENT_2)
                    && option.data.first_chunk() == Some(&id.to_be_bytes())
            }
            Self::FastOpen => option.is_fast_open(),
        }
    }
}

/// Takes Fast Open options out of the header, leaving padding; returns whether there were any.
///
/// # Errors
/// The packet must parse and not be authenticated.
pub fn strip_fast_open(bytes: &mut Vec<u8>) -> Result<bool, EditError> {
    strip_option(bytes, OptionSelector::FastOpen, OptionEdit::Blank)
}

/// Takes options out of the header and returns whether there were any.
///
/// # Errors
/// The packet must parse and not be authenticated.
pub fn strip_option(
    bytes: &mut Vec<u8>,
    selector: OptionSelector,
    how: OptionEdit,
) -> Result<bool, EditError> {
    let mut edit = Edit::begin(bytes)?;
    let range = edit.segment.options_range();
    let old = bytes.get(range.clone()).ok_or(ParseError::Truncated)?;
    let Some(new) = without(old, selector, how) else {
        return Ok(false);
    };
    edit.delta.replace(old, &new);
    if new.len() != old.len() {
        shrink_offset(&mut edit, bytes, new.len())?;
    }
    bytes.splice(range, new);
    edit.finish(bytes)?;
    Ok(true)
}

fn shrink_offset(edit: &mut Edit, bytes: &mut [u8], options_len: usize) -> Result<(), EditError> {
    let at = edit.segment.ip.header_len + tcp::OFFSET_AT;
    let [first, flags] = array(bytes, at).ok_or(ParseError::Truncated)?;
    let words = u8::try_from((tcp::MIN_HEADER_LEN + options_len) / 4).map_err(|_| ParseError::TcpOffset)?;
    edit.overwrite(bytes, at, [(words << 4) | (first & 0x0f), flags])
}

/// Returns the option bytes without the selected ones, or `None` if there are none.
fn without(bytes: &[u8], selector: OptionSelector, how: OptionEdit) -> Option<Vec<u8>> {
    let mut walk = options::Options::new(bytes);
    let doomed: Vec<_> =
        walk.by_ref().filter(|option| selector.selects(option)).map(|option| option.range).collect();
    if doomed.is_empty() {
        return None;
    }
    let mut new = bytes.to_vec();
    for range in doomed.into_iter().rev() {
        match how {
            OptionEdit::Blank => {
                let padding = vec![options::NO_OPERATION; range.len()];
                put(&mut new, range.start, &padding)?;
            }
            OptionEdit::Remove => drop(new.splice(range, [])),
        }
    }
    while !new.len().is_multiple_of(4) {
        new.push(options::END);
    }
    Some(new)
}
