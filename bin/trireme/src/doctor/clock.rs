//! Whether the clock is right: tokens live for minutes.

use std::time::UNIX_EPOCH;

use trireme::datapath::bpf::{self, WallClock};
use trireme_identity::time::WallTime;
use trireme_token::LEEWAY_SECS;

use super::finding::Finding;

const CHECK: &str = "clock";
const REMEDY: &str = "start a time service: timedatectl set-ntp true, or chrony";

/// Looks at the clock.
pub(super) fn look() -> Finding {
    // The program cannot be younger than today.
    let program = std::fs::metadata("/proc/self/exe").and_then(|meta| meta.modified()).ok();
    let program =
        program.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map(|age| WallTime(age.as_secs()));
    judge(bpf::wall_clock().ok(), crate::keys::now(), program)
}

fn judge(clock: Option<WallClock>, now: WallTime, program: Option<WallTime>) -> Finding {
    if let Some(program) = program.filter(|program| now.plus_secs(LEEWAY_SECS) < *program) {
        let (now, program) = (crate::output::time(now), crate::output::time(program));
        return Finding::problem(
            CHECK,
            format!("it says {now}, but this program is from {program}: tokens of others are refused"),
            REMEDY,
        );
    }
    match clock {
        Some(clock) if clock.synchronized => {
            Finding::ok(CHECK, format!("synchronised to within {} ms", clock.max_error.as_millis()))
        }
        Some(_) => Finding::note(
            CHECK,
            format!(
                "nobody tells the kernel the time: nodes more than {LEEWAY_SECS} s apart refuse each other's tokens"
            ),
            REMEDY,
        ),
        None => Finding::note(CHECK, "the kernel does not say how well it is kept", REMEDY),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::finding::Level;
    use super::*;

    const NOW: WallTime = WallTime(1_790_000_000);

    fn clock(synchronized: bool) -> Option<WallClock> {
        Some(WallClock { synchronized, max_error: Duration::from_millis(7) })
    }

    #[test]
    fn a_clock_that_is_kept_is_fine_and_one_that_nobody_keeps_is_noted() {
        assert_eq!(judge(clock(true), NOW, None), Finding::ok("clock", "synchronised to within 7 ms"));
        assert_eq!(judge(clock(false), NOW, Some(NOW)).level, Level::Note);
        assert_eq!(judge(None, NOW, None).level, Level::Note);
    }

    #[test]
    fn a_time_before_the_program_itself_is_a_problem() {
        let finding = judge(clock(true), NOW, Some(NOW.plus_secs(LEEWAY_SECS + 1)));
        assert_eq!(finding.level, Level::Problem);
        assert!(finding.found.contains("but this program is from 2026-09-21"), "{finding:?}");
        assert_eq!(judge(clock(true), NOW, Some(NOW.plus_secs(LEEWAY_SECS))).level, Level::Ok);
    }
}
