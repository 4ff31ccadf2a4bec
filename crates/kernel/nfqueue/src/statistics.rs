//! What the kernel counts about its queues (/proc/net/netfilter/nfnetlink_queue).

use std::fs;
use std::io;

/// One queue of the calling thread's network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QueueStatistics {
    /// Its number.
    pub queue: u16,
    /// Packets that wait for their verdict.
    pub waiting: u32,
    /// Packets dropped because the queue was full.
    pub dropped: u32,
    /// Packets dropped because the socket had no room.
    pub not_delivered: u32,
    /// Packets that were queued so far, wrapping.
    pub queued: u32,
}

/// Reads those of the calling thread's namespace; none where nobody is bound to a queue, or the kernel has none.
///
/// # Errors
/// Whatever the file says, except that it is absent.
pub fn statistics() -> io::Result<Vec<QueueStatistics>> {
    match fs::read_to_string("/proc/thread-self/net/netfilter/nfnetlink_queue") {
        Ok(text) => Ok(parse_statistics(&text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Reads the text of that file; lines of another form are left out.
#[must_use]
pub fn parse_statistics(text: &str) -> Vec<QueueStatistics> {
    text.lines().filter_map(line).collect()
}

/// Number, port of the socket, waiting, copy mode, copy range, dropped by the queue, by the socket, last id, 1.
fn line(line: &str) -> Option<QueueStatistics> {
    let mut fields = line.split_ascii_whitespace();
    let mut next = || fields.next()?.parse::<u32>().ok();
    let (queue, _port, waiting) = (next()?, next()?, next()?);
    let (_mode, _range, dropped, not_delivered, queued) = (next()?, next()?, next()?, next()?, next()?);
    Some(QueueStatistics { queue: u16::try_from(queue).ok()?, waiting, dropped, not_delivered, queued })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel_are_read_and_others_left_out() {
        let text = "    7   1234     2 2 65531     3     4     99  1\nnonsense\n70000 1 0 2 1 0 0 0 1\n";
        assert_eq!(
            parse_statistics(text),
            [QueueStatistics { queue: 7, waiting: 2, dropped: 3, not_delivered: 4, queued: 99 }]
        );
    }
}
