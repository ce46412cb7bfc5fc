"""The command line: one file a command, at most 80 lines, and no idea of its own: parse, call, print.

Last room of the river: it may import everything, and nothing imports it. The shell is `app` (the table, the contract of
exit codes, `--json` and `--debug`), `options` (words that several commands share) and `progress` (what is said while
something runs). Invariant: a command is imported when it is called, never for the help of another.

A new command is one file and one line. The line goes into `app.COMMANDS`: `Command("score", "one line of help")`. The
file, `cli/score.py`, holds a public function of the same name (`best_of` for a command `best-of`):

    '''`plaudit score`: rows in, the same rows with scores out.'''

    from plaudit.cli.options import Dtype, Out
    from plaudit.cli.progress import Progress, say, show


    def score(
        model: str, data: list[str], /, *, out: Out, dtype: Dtype = "auto", invariant: bool = False
    ) -> dict[str, Any]:
        '''Score every completion of DATA with MODEL; rows keep their order.

        For example:

            plaudit score smollm2 answers.jsonl -o scored.jsonl

        Parameters
        ----------
        model
            A folder, a hub name, or smollm2.
        data
            Files, globs, `-`, or hub:owner/name.
        '''
        from plaudit.model import RewardModel        # heavy rooms late, so that help stays fast

        with Progress("scoring", unit="rows") as progress:
            progress.update(done, total, unique_tokens_per_s=rate, sharing=1.62)
        say("3 rows were too long and have no score")   # a note: stderr
        show(table)                                     # the result for people: stdout, left out under --json
        return {"rows": 812, "unscored": 3}             # the result for machines: printed under --json

Parameters before the star are positional (`list[str]` takes all that follow), after it they are `--options`; a default
makes one optional, `bool` makes a flag. Types are checked and shown, `Literal` gives choices and suggests the nearest.
The docstring is the help; "For example:", not "Example:", which its parser takes for a section of its own.

The shell adds `--json` and `--debug`, prints the returned dictionary as one JSON object, turns errors into one sentence
on stderr, and keeps other libraries' noise away. A command raises; it never exits, never catches what it cannot mend,
and never prints anywhere but through `say`, `show` and `Progress`.
"""
