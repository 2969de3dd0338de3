#!/usr/bin/env bash
# The tests in two turns: most in several processes, then those marked `alone`, one after another.
# Arguments go to pytest, in both turns: tests/run.sh tests/session/test_session.py -x
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3} none=5
unset PYTHONDONTWRITEBYTECODE  # hundreds of processes import the package

"$python" -m pytest -n "${WORKERS:-2}" --dist loadfile --max-worker-restart 0 \
  --turn beside "$@"
beside=$?
[ $beside -le 1 ] || [ $beside -eq $none ] || exit $beside  # interrupted, or ended by -x

"$python" -m pytest --turn alone "$@"
alone=$?
# A turn may have no tests; two turns without one mean that the arguments name none.
[ $alone -ne $none ] || exit $beside
[ $beside -ne $none ] || exit $alone
exit $((beside > alone ? beside : alone))
