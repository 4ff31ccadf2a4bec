//! The program as an operator meets it: exit codes, files, texts, a real agent.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod agent_check;
mod agent_fast;
mod agent_run;
mod doctor;
mod explain;
mod keys;
mod stage;

use stage::Stage;

#[test]
fn help_and_version_need_no_agent_and_no_root() {
    let stage = Stage::new();
    for arguments in [&["--help"][..], &["--version"], &["agent", "--help"], &["keys", "node", "--help"]] {
        let (code, out, _) = stage.run_as(65534, arguments);
        assert_eq!(code, 0, "{arguments:?}");
        assert!(out.contains("trireme"), "{out}");
    }
}

#[test]
fn questions_without_an_agent_name_the_socket_and_the_remedy() {
    let stage = Stage::new();
    for verb in [&["status"][..], &["flows"], &["explain", "--from", "a=b", "--to", "a=b", "--port", "80"]] {
        let (code, _, error) = stage.run(&[verb, &["--socket", "none.sock"]].concat());
        assert_eq!(code, 3, "{error}");
        assert_eq!(
            error,
            "trireme: no agent answers on none.sock: start `trireme agent`, or name its socket with --socket\n"
        );
    }
}

#[test]
fn a_wrong_command_line_has_exit_code_2_and_says_what_is_right() {
    let stage = Stage::new();
    for (arguments, text) in [
        (&["explain", "--from", "role", "--to", "a=b", "--port", "80"][..], "a tag is written key=value"),
        (
            &["explain", "--from", "a=b", "--to", "a=b", "--port", "http"],
            "a port is 1 to 65535, as in 80/tcp",
        ),
        (&["keys", "node", "--id", "a b", "--ca", "x", "--out", "y"], "an id holds only"),
        (&["keys", "ca", "--name", "x", "--out", "y", "--days", "0"], "0 is not in 1..=36500"),
        (&["agent"], "--config"),
        (&["agent", "--config", "x", "--check", "--cleanup"], "cannot be used with"),
        (&["flows", "--format", "xml"], "possible values: table, json"),
    ] {
        let (code, _, error) = stage.run(arguments);
        assert_eq!(code, 2, "{arguments:?}: {error}");
        assert!(error.contains(text), "{arguments:?}: {error}");
    }
}
