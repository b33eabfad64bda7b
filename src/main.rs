//! Argument parsing and exit codes, nothing else.

use clap::{Parser, Subcommand};
use hafailover::cli;
use std::process::ExitCode;

/// Keeps groups of systemd units running on exactly one of several servers.
#[derive(Debug, Parser)]
#[command(name = "hafailover", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Daemon(cli::daemon::Args),
    Status(cli::status::Args),
    Move(cli::move_group::Args),
    Standby(cli::standby::Args),
    Online(cli::online::Args),
    Explain(cli::explain::Args),
    Maintenance(cli::maintenance::Args),
    Retry(cli::retry::Args),
    Clear(cli::clear::Args),
    Adopt(cli::adopt::Args),
    History(cli::history::Args),
    Check(cli::check::Args),
    ConfirmDown(cli::confirm_down::Args),
    Fence(cli::fence::Args),
    Keygen(cli::keygen::Args),
    Disk(cli::disk::Args),
    State(cli::state::Args),
    Reload(cli::reload::Args),
    Witness(cli::witness::Args),
    #[command(hide = true)]
    FenceAgent(cli::fence_agent::Args),
    #[command(hide = true)]
    Ip(cli::ip::Args),
    #[command(hide = true)]
    Lost(cli::lost::Args),
    #[command(hide = true)]
    Reserve(cli::reserve::Args),
    #[command(hide = true)]
    Watchdog(cli::watchdog::Args),
    #[command(hide = true)]
    Generator(cli::generator::Args),
}

/// What runs for systemd goes on when nobody reads its words; what runs for a person ends with the
/// pipe, as other programs do (Rust ignores the signal).
fn end_with_the_pipe(command: &Command) {
    if !matches!(
        command,
        Command::Daemon(_)
            | Command::FenceAgent(_)
            | Command::Ip(_)
            | Command::Lost(_)
            | Command::Reserve(_)
            | Command::Watchdog(_)
            | Command::Witness(_)
    ) {
        // SAFETY: there is one thread yet, and the default action needs no handler.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    }
}

/// A program that asks for JSON gets it for its own mistakes too.
fn parse() -> Result<Command, ExitCode> {
    Cli::try_parse().map(|cli| cli.command).map_err(|error| {
        if error.use_stderr() && std::env::args_os().any(|arg| arg == "--json") {
            let words = error.to_string();
            return cli::fail(words.trim_start_matches("error: ").trim_end(), 2, true);
        }
        let _ = error.print();
        ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
    })
}

fn main() -> ExitCode {
    let command = match parse() {
        Ok(command) => command,
        Err(code) => return code,
    };
    end_with_the_pipe(&command);
    match command {
        Command::Daemon(args) => cli::daemon::run(args),
        Command::Status(args) => cli::status::run(args),
        Command::Move(args) => cli::move_group::run(args),
        Command::Standby(args) => cli::standby::run(args),
        Command::Online(args) => cli::online::run(args),
        Command::Explain(args) => cli::explain::run(args),
        Command::Maintenance(args) => cli::maintenance::run(args),
        Command::Retry(args) => cli::retry::run(args),
        Command::Clear(args) => cli::clear::run(args),
        Command::Adopt(args) => cli::adopt::run(args),
        Command::History(args) => cli::history::run(args),
        Command::Check(args) => cli::check::run(args),
        Command::ConfirmDown(args) => cli::confirm_down::run(args),
        Command::Fence(args) => cli::fence::run(args),
        Command::FenceAgent(args) => cli::fence_agent::run(args),
        Command::Keygen(args) => cli::keygen::run(args),
        Command::Disk(args) => cli::disk::run(args),
        Command::State(args) => cli::state::run(args),
        Command::Reload(args) => cli::reload::run(args),
        Command::Witness(args) => cli::witness::run(args),
        Command::Ip(args) => cli::ip::run(args),
        Command::Lost(args) => cli::lost::run(args),
        Command::Reserve(args) => cli::reserve::run(args),
        Command::Watchdog(args) => cli::watchdog::run(args),
        Command::Generator(args) => cli::generator::run(args),
    }
}
