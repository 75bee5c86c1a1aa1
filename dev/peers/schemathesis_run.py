"""Runs schemathesis against a server: arguments of `schemathesis run`, output of its own, exit status 0 where no check failed."""

import sys

from schemathesis.cli import schemathesis

schemathesis(["run", *sys.argv[1:]])
