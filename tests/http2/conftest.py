"""What can be tested here."""

import os

# atheris has wheels for no other machine.
collect_ignore = [] if os.uname().machine == "x86_64" else ["test_fuzz.py"]
