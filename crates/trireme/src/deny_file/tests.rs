//! What is read, what is refused, and that nothing in between exists.

use std::os::unix::fs::PermissionsExt;

use super::*;

const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const TOKEN: &str = "00112233445566778899aabbccddeeff";

fn parsed(text: &str) -> Result<DenyList, String> {
    parse(Path::new("deny"), text.as_bytes()).map_err(|error| error.to_string())
}

#[test]
fn entries_comments_and_empty_lines_are_read() {
    let text =
        format!("\u{feff}# all of it\n\nkey {KEY} # lost\r\n  token\t{TOKEN}\nnode node-b\nnode node-b");
    let list = parsed(&text).unwrap();
    assert_eq!((list.keys.len(), list.tokens.len(), list.nodes.len()), (1, 1, 1));
    assert!(list.keys.contains(&KEY.parse().unwrap()) && list.tokens.contains(&TOKEN.parse().unwrap()));
    assert!(parsed("").unwrap().is_empty());
}

#[test]
fn a_wrong_line_is_named_with_what_would_be_right() {
    for (text, problem) in [
        ("node a\nnode", "deny:2: an entry is `key <id>`, `token <id>` or `node <id>`"),
        ("node a b", "deny:1: an entry is `key <id>`, `token <id>` or `node <id>`"),
        ("certificate 7", "deny:1: key, token or node is denied, not \"certificate\""),
        ("\n\nkey 7", "deny:3: no key: expected 64 lower-case hexadecimal digits"),
        ("token x", "deny:1: no token: expected 32 lower-case hexadecimal digits"),
        ("node a*", "deny:1: no node: an id holds only ASCII letters, digits and -._:/@, not '*'"),
    ] {
        assert_eq!(parsed(text).unwrap_err(), problem);
    }
}

#[test]
fn no_text_makes_the_reader_fail_otherwise() {
    // Every prefix of a good file with every byte replaced by each of some odd ones.
    let good = format!("key {KEY}\n# c\ntoken {TOKEN}\nnode n\n");
    for at in 0..good.len() {
        for byte in [0, b'\n', b'#', b' ', 0x80, 0xff] {
            let mut text = good.clone().into_bytes();
            if let Some(place) = text.get_mut(at) {
                *place = byte;
            }
            drop(parse(Path::new("deny"), &text));
            drop(parse(Path::new("deny"), text.get(..at).unwrap()));
        }
    }
}

#[test]
fn an_entry_is_written_as_it_is_read() {
    for text in [format!("key {KEY}"), format!("token {TOKEN}"), "node node-b".to_owned()] {
        assert_eq!(text.parse::<Entry>().unwrap().to_string(), text);
    }
}

#[test]
fn appending_keeps_what_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deny");
    let entry: Entry = "node node-b".parse().unwrap();
    assert_eq!(append(&path, &entry).unwrap(), Appended::Added);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::write(&path, "# why\nnode node-a").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::os::unix::fs::symlink("deny", folder.path().join("link")).unwrap();
    assert_eq!(append(&folder.path().join("link"), &entry).unwrap(), Appended::Added);
    assert_eq!(append(&path, &entry).unwrap(), Appended::Present);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "# why\nnode node-a\nnode node-b\n");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
    std::fs::write(&path, "nonsense\n").unwrap();
    assert!(append(&path, &entry).unwrap_err().to_string().contains("deny:1: an entry is"));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "nonsense\n");
}

#[test]
fn entries_appended_at_the_same_time_are_all_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deny");
    std::thread::scope(|scope| {
        for number in 0..16 {
            let path = &path;
            scope.spawn(move || append(path, &format!("node n{number}").parse().unwrap()).unwrap());
        }
    });
    assert_eq!(load(&path).unwrap().nodes.len(), 16);
}

#[tokio::test]
async fn a_live_file_keeps_the_last_good_list() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deny");
    assert!(DenyListFile::open(&path).unwrap_err().to_string().contains("an empty file denies nothing"));
    std::fs::write(&path, "node a\n").unwrap();
    let file = DenyListFile::open(&path).unwrap();
    let (changes, mut told) = tokio::sync::mpsc::channel(1);
    let stop = tokio_util::sync::CancellationToken::new();
    let watched = async {
        append(&path, &"node b".parse().unwrap()).unwrap();
        told.recv().await.unwrap();
        assert_eq!(file.list().nodes.len(), 2);
        std::fs::write(&path, "rubbish\n").unwrap();
        while file.status().error.is_none() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        assert_eq!(file.list().nodes.len(), 2);
        std::fs::write(&path, "node a\n").unwrap();
        told.recv().await.unwrap();
        assert_eq!((file.list().nodes.len(), file.status().error), (1, None));
        stop.cancel();
    };
    tokio::join!(file.run(changes, stop.clone()), watched);
}
