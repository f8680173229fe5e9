"""Programs that tests start by name (ray, python, shellcheck) are those beside this interpreter, activated or not."""

import os
import sys
from pathlib import Path

os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
