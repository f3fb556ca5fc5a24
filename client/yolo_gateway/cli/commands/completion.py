"""`completion`: what a shell needs to complete commands and options."""

import click
from click.shell_completion import get_completion_class

EXAMPLES = """\b
Examples:
  eval "$(yolo-gateway completion bash)"                  # into ~/.bashrc
  eval "$(yolo-gateway completion zsh)"                   # into ~/.zshrc
  yolo-gateway completion fish > ~/.config/fish/completions/yolo-gateway.fish
"""


@click.command(epilog=EXAMPLES)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Write a script that has SHELL complete this command."""
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(context.find_root().command, {}, "yolo-gateway", "_YOLO_GATEWAY_COMPLETE").source())
