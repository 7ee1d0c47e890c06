"""PyPI `kosoku` runs Autobahn's test cases: conformance.py URL. Prints the number of cases by result, every case that did not pass, and
whether all conform."""

import asyncio
import sys
from collections import Counter

from kosoku import FailureError, run_fuzzingclient

# NON-STRICT and INFORMATIONAL conform, and differ in what the standard leaves open.
CONFORMING = ("OK", "NON-STRICT", "INFORMATIONAL")


def passed(result) -> bool:
    if result.behavior.value in CONFORMING:
        return True
    # Cases 12 and 13 are about permessage-deflate (RFC 7692), an extension that the server declines: the frames are small.
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
    # The tests read this line and not the exit status, which was once not 0 although every case conformed and no error was reported.
    print("all conform" if conform else "not all conform", flush=True)
    return int(not conform)


sys.exit(asyncio.run(main()))
