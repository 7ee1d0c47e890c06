"""PyPI `kosoku`, which runs Autobahn's cases: conformance.py URL. Prints how many came to what, every case that did not pass, and
whether all conform."""

import asyncio
import sys
from collections import Counter

from kosoku import FailureError, run_fuzzingclient

# NON-STRICT and INFORMATIONAL conform, and differ in what is left open.
CONFORMING = ("OK", "NON-STRICT", "INFORMATIONAL")


def passed(result) -> bool:
    if result.behavior.value in CONFORMING:
        return True
    # 12 and 13 are of permessage-deflate (RFC 7692), an extension that we do not accept when it is offered: the frames are small.
    return result.case_id.startswith(("12.", "13.")) and result.behavior.value == "UNIMPLEMENTED"


async def main() -> int:
    try:
        results = await run_fuzzingclient(sys.argv[1], concurrency=4)
    except FailureError as failure:
        results = failure.results
    print(len(results), "cases:", dict(Counter(result.behavior.value for result in results)))
    for result in results:
        if not passed(result) or result.behavior.value == "NON-STRICT":
            print(result.case_id, result.behavior.value, result.behavior_close.value, result.result)
    conform = all(passed(result) for result in results)
    # What is asked for is this, and not the exit status: that was seen to be bad once, with every case conforming and no error told.
    print("all conform" if conform else "not all conform", flush=True)
    return int(not conform)


sys.exit(asyncio.run(main()))
