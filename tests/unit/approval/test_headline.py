"""What people's channels are told of a question is the head of its form, as plain text."""

from __future__ import annotations

from ashat.common.text import unescape_markdown
from tasks.approval.page import headline, verdict_lines
from tasks.runtime.artifacts import escape

FORM = r"""### May UPD\-1 go to production?

1. ⚠️ **Not clean:** 7 checks: 1 warned. Approving needs a comment that says why.
2. **Files: 24 added** in Auth; production runs nothing.
3. To decide, type **`31a3193b`**. Open until then. [Read the whole page](http://ui/artifacts/key/gate-1) first.

**First \| release &lt; \[x\]\(http://elsewhere\)**

- Pushed by kim@alpha
- Will reach production and 2 Licensed Mainframes

## What changes

- **added** secret\.txt
"""


def test_the_head_of_a_form_is_told_as_plain_text() -> None:
    assert headline(FORM).splitlines() == [
        "May UPD-1 go to production?",
        "1. ⚠️ Not clean: 7 checks: 1 warned. Approving needs a comment that says why.",
        "2. Files: 24 added in Auth; production runs nothing.",
        "3. To decide, type 31a3193b. Open until then. Read the whole page: http://ui/artifacts/key/gate-1 first.",
        "First | release < [x](http://elsewhere)",
        "- Pushed by kim@alpha",
        "- Will reach production and 2 Licensed Mainframes",
    ]


def test_the_lines_below_the_question_are_the_verdict_the_size_and_what_to_type_and_why_it_is_asked_again() -> None:
    shown = [
        "1. ⚠️ Not clean: 7 checks: 1 warned. Approving needs a comment that says why.",
        "2. Files: 24 added in Auth; production runs nothing.",
        "3. To decide, type 31a3193b. Open until then. Read the whole page: http://ui/artifacts/key/gate-1 first.",
    ]
    assert verdict_lines(FORM).split("\n\n") == shown
    question, below = FORM.split("\n", 1)
    asked_again = f"{question}\n\n> ⚠️ **Asked again:** {escape('G-10 <b> **x** [a](http://e)')}\n{below}"
    why = r"> ⚠️ Asked again: G-10 &lt;b&gt; \*\*x\*\* \[a\]\(http://e)"
    assert verdict_lines(asked_again).split("\n\n") == [why, *shown]


def test_what_was_escaped_for_markdown_reads_as_it_was_written() -> None:
    text = "a|b <c> & `d` *e* [f](g) \\ #1"
    assert unescape_markdown(escape(text)) == text
