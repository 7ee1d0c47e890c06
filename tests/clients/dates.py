"""Prints the occurrences of days of the year in the IANA time zones, for tests/clients/dates.rs.

dates.py FIRST_YEAR LAST_YEAR all|some: for each zone, day and minute one line `ZONE DAY MINUTE TIME TIME …`, with the Unix time in
seconds of each year. `some` takes a few days, `all` every day of a leap year. The rules are those of dateutil: `relativedelta` adds years,
`resolve_imaginary` moves a time that the clock skips. `zoneinfo` must agree, and reads the database of the package tzdata only.
"""

import datetime
import sys
import zoneinfo

from dateutil import tz
from dateutil.relativedelta import relativedelta

zoneinfo.reset_tzpath(to=[])

first, last, days = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
# A leap year before all others, so that each year is counted from the same day.
ORIGIN = 1996
SOME = ["02-29", "03-28", "12-30"]
# Clocks change at 02:30 in many zones.
MINUTE = 150


def month_days():
    if days == "some":
        return SOME
    origin = datetime.date(ORIGIN, 1, 1)
    return [(origin + datetime.timedelta(n)).strftime("%m-%d") for n in range(366)]


def occurrences(zone, month_day):
    month, day = map(int, month_day.split("-"))
    origin = datetime.date(ORIGIN, month, day)
    for year in range(first, last + 1):
        date = origin + relativedelta(years=year - ORIGIN)
        local = datetime.datetime.combine(date, datetime.time(MINUTE // 60, MINUTE % 60), zone)
        found = tz.resolve_imaginary(local).timestamp()
        # PEP 495: of a time that the clock skips, the offset before the change counts, as that of the first of two equal times.
        if found != local.timestamp():
            sys.exit(f"dateutil and zoneinfo differ: {local} {found} {local.timestamp()}")
        yield str(int(found))


for name in sorted(zoneinfo.available_timezones()):
    zone = zoneinfo.ZoneInfo(name)
    for month_day in month_days():
        print(name, month_day, MINUTE, *occurrences(zone, month_day))
