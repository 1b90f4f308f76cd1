"""``python -m wireleap_relay`` is the ``wireleap-relay`` command."""

import sys

from wireleap_relay.cli.main import main

sys.exit(main())
