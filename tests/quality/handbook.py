"""The platform handbook of a company that doesn't exist, and questions that it answers.

Runbooks are alike on purpose: a paragraph such as "It may take 30 seconds" says nothing about which
service it is of, and only the headings or a written context tell.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = ["DOCUMENTS", "QUESTIONS", "Question"]


class Question(NamedTuple):
    """``kind``: what it takes to find the answer: the very words, their meaning, or the place of a
    paragraph in its document.
    """

    text: str
    document: str
    kind: Literal["words", "meaning", "context"]


def _runbook(name: str, what: str, restart: str, limits: str, calls: str, codes: str) -> str:
    return f"""# {name} runbook

## What it does

{what}

## Restart

{restart} Nobody needs to be asked first, but say so in the operations channel. The first requests
afterwards are slow, because its cache is empty.

## Limits

{limits} Requests beyond that are turned away with status 429, and callers are expected to come back
after the time that the answer names.

## When it fails at night

{calls} Write down what you saw before you change anything: the graphs go back for six hours only,
and the people who look into it in the morning need them.

## Error codes

{codes}
"""


DOCUMENTS: dict[str, str] = {
    "ferry.md": _runbook(
        "Ferry",
        "Ferry stands at the edge. Every call from customers and partners passes it: it ends TLS, "
        "checks tokens, counts calls and hands them on to the service that is meant. It keeps "
        "nothing, so that any of its copies may be lost at any time.",
        "Replace the copies one by one with `shipctl roll`. It takes four minutes for all twelve.",
        "A customer may make 600 calls a minute, a partner 6,000.",
        "Page the edge team. If they don't answer within ten minutes, send all traffic to the "
        "second site by `shipctl divert`.",
        "FRY-101: the certificate of a partner has run out. FRY-207: no healthy copy of the "
        "service behind. FRY-330: the token was made for another audience.",
    ),
    "quay.md": _runbook(
        "Quay",
        "Quay holds orders from the moment a customer books until the freight is delivered. It is "
        "the only service that may change an order, and it keeps each change with its author.",
        "Drain it first with `shipctl drain quay`, wait for open transactions, then restart. It "
        "may take half an hour on a busy day.",
        "One order has up to 400 positions, and 50 changes a second are taken in.",
        "Page the orders team at once, whatever the hour: while it is down no truck can be loaded.",
        "QUA-014: two people changed an order at once; load it again. QUA-060: the position refers "
        "to an article that was withdrawn.",
    ),
    "crane.md": _runbook(
        "Crane",
        "Crane plans. Each night it assigns trucks, drivers and loading docks to the orders of the "
        "following day, and when something breaks during the day it plans the rest again.",
        "Stop the running plan with `crane abort` and start it anew. It begins from nothing and "
        "takes up to 90 minutes, so think twice after three in the morning.",
        "A plan covers at most 9,000 stops and 1,100 vehicles.",
        "Wait until five o'clock: dispatchers can work by yesterday's plan. Page only if the plan "
        "isn't there by then.",
        "CRN-4: no driver with the licence for dangerous goods is free. CRN-19: the time windows "
        "of two stops exclude each other.",
    ),
    "tally.md": _runbook(
        "Tally",
        "Tally writes invoices and credit notes, keeps what customers owe, and sends the books to "
        "the accountants' system at the end of the month.",
        "Restart it whenever you like outside the closing days, the last two of a month. In those, "
        "ask the finance desk.",
        "Twenty invoices a second are rendered, and a document has 200 pages at most.",
        "Nothing has to happen before eight. Leave a note for the finance desk.",
        "TLY-52: an exchange rate of the day is missing. TLY-77: the customer's VAT number was not "
        "confirmed.",
    ),
    "beacon.md": _runbook(
        "Beacon",
        "Beacon tells people things: mails, text messages, and the little notes in the app. It "
        "tries again for two days and then gives up with a report to the sender.",
        "Restart it at any time; what was not sent waits in the queue and goes out afterwards.",
        "Thirty messages a second leave for each provider, and one person gets ten in an hour.",
        "Page nobody for a queue that is shorter than a million. Above that, page the messaging "
        "team.",
        "BCN-8: the provider refuses the sender's number. BCN-31: the template names a field that "
        "the event doesn't have.",
    ),
    "watchtower.md": _runbook(
        "Watchtower",
        "Watchtower knows who may do what. Staff sign in there with their hardware key, services "
        "with a certificate, and it gives out the tokens that all the others check.",
        "Never restart both sites together: without it nobody can sign in, also not those who "
        "would repair it. One site takes two minutes.",
        "A person may try to sign in five times in a quarter of an hour.",
        "Page the identity team and the shift lead together. The sealed envelope in the safe has "
        "the emergency account.",
        "WTW-3: the hardware key is not known. WTW-40: the clock of the device is more than 90 "
        "seconds off.",
    ),
    "leave.md": """# Time off

## How much

Everyone has 28 days a year, whatever the contract says about hours. Up to six that were not taken
move into the next spring and are gone after the end of March.

## How to ask

Enter it in the calendar two weeks ahead for anything longer than three days; your lead answers
within two working days. Silence counts as a yes. During the closing days of the books the finance
desk can't spare people.

## When you are ill

Call or write before your day would begin. A doctor's note is needed from the fourth day on. Days
of illness during a holiday are given back when there is a note.

## Parents

Either parent may stay at home for twelve months with pay of 80 percent, together or one after the
other, until the child goes to school.
""",
    "expenses.md": """# Money that you spent for the company

## What is paid back

Trains in second class, rooms up to 140 a night (190 in capitals), and meals by the flat rate of
the country. Taxis only when no bus runs or you carry equipment. Alcohol is yours.

## How

Photograph the receipt on the day and send it to the desk with the number of your project. Without
a receipt nothing above ten can be paid. The money comes with the next salary if you sent it
before the twentieth.

## Cards

Who travels more than five times a year gets a card of the company. A lost card is blocked through
the bank's number on the intranet, at any hour, and then the desk is told.
""",
    "onboarding.md": """# Your first two weeks

## Before you come

A laptop and a hardware key arrive by post. Don't set a password yet: the key is what you sign in
with.

## The first day

Your companion meets you at ten. You get into the rooms, sign the confidentiality paper, and see a
loading dock from within, because everyone here should have smelt one.

## The first change

By Friday something of yours runs in production, however small. Your companion reviews it with you
and you press the button yourself.

## The second week

You sit with dispatchers for a day and a night. Afterwards write half a page on what you would
change; it is read by the whole platform group.
""",
    "releases.md": """# Bringing changes out

## The way of a change

A change is reviewed by one other person, or two where money or identity is touched. The pipeline
builds it once and that very build goes through all stages; nothing is rebuilt on the way.

## Stages

First to the practice site for an hour, then to five percent of the traffic for another, then to
all. If errors rise by more than half a percent, the rollout goes back by itself.

## When not to

Nothing goes out between Friday noon and Monday morning, and nothing but repairs in December. Who
must break this rule asks the shift lead, in writing.

## Going back

`shipctl back SERVICE` puts the former build in place within a minute. Changes of the database are
made so that the former build works with them; if yours can't be, it is two changes.
""",
    "incidents.md": """# When something is on fire

## Who leads

The first who notices leads until someone takes over aloud. Who leads doesn't repair: they keep
the list, ask, decide and tell others.

## How bad is it

Red: freight stands still or data is lost. Amber: customers notice but work goes on. Blue: only we
notice. Red wakes people; amber waits for the morning if there is a way around it.

## Telling customers

The status page is changed within fifteen minutes of a red one, and every half hour from then on,
also when there is nothing new. No promises about when it ends.

## Afterwards

Within five working days there is a page about what happened. It names causes, not culprits. Two
things at most are decided, with a name and a date each.
""",
    "oncall.md": """# Being on call

## Turns

A turn is a week, from Wednesday noon to Wednesday noon, and comes every sixth week at most. Turns
may be swapped freely until the day before.

## What is expected

Answer a page within ten minutes and be at a keyboard within thirty. Nobody is expected to know
every service: reading the runbook aloud to somebody awake is a fine beginning.

## Pay and rest

A flat 350 for the week and double time for the hours at work. After a night with more than one
hour of work you begin eleven hours later, and nobody will ask.
""",
    "backups.md": """# Copies of what we can't lose

## What and how often

Databases are copied in full each night and their journals every five minutes, so five minutes of
work is the most that may be gone. Documents of customers are kept twice, at both sites, as they
arrive.

## Where

A third copy lies with another provider in another country, encrypted with keys that only the
vault knows. It can be written but for 35 days not be erased, also not by us.

## Practice

Each quarter a team that didn't build it brings one service back from nothing and takes the time.
The best so far is 41 minutes for the order service; the target is two hours.
""",
    "secrets.md": """# Keys and passwords

## The vault

Passwords, keys and certificates live in the vault and nowhere else: not in code, not in chat, not
on paper. Services fetch them when they start and again when told to.

## Changing them

Machine passwords change by themselves each month. When a person with access leaves, everything
they could read is changed on the same day.

## When one got out

Change it first and ask afterwards. Then tell the security desk; being quick counts, and nobody
has ever been blamed for telling. A key that was in a public repository for a second counts as
known.
""",
    "laptops.md": """# Your machine

## What you may do

It is yours to arrange. Disk encryption and the automatic lock stay on, and updates are installed
within a week. Games are fine; tools that reach into production from a private account are not.

## Lost or stolen

Call the security desk at once, at night as well. The machine is erased from afar and a new one is
with you on the next working day. Whatever was saved in the home folder in the last hour is gone.

## Old ones

After four years you may buy it for a tenth of its price, or send it back in its box.
""",
    "metrics.md": """# What we measure

## Names

`team.service.what_unit`, such as `orders.quay.write_seconds`. A metric without a unit in its name
is refused by the collector with OBS-12.

## Labels

At most eight, none of them with more than a thousand values. Ids of customers or orders are never
labels; they belong into traces. A metric that breaks this is cut off and its team is told.

## How long

Every ten seconds for six hours, every minute for a month, every hour for three years. Traces are
kept for nine days, one in a hundred, and all of those that failed.
""",
    "databases.md": """# Databases

## Which

PostgreSQL, unless you can say in one sentence why not. The platform group runs it: three
machines, one of which writes, and a change of the writer takes less than ten seconds.

## Getting one

`shipctl db new NAME` and two minutes. It begins with 20 connections and 50 gigabytes; both grow
on request. Statements longer than thirty seconds are ended, with DB-57014 in the log.

## Changes

Migrations run before the new build starts and may hold no lock for longer than two seconds.
Columns are dropped a release after nobody reads them.
""",
    "queues.md": """# Letting services talk

## Events

What happened is told as an event on the bus, in the past tense: `order.loaded`. Nobody answers an
event. Events are kept for two weeks and may come twice; read them so that this does no harm.

## Calls

What must be answered is a call, with a time limit that the caller sets, two seconds if it
doesn't. Who calls three services to answer one question should ask for an event instead.

## Dead letters

An event that fails five times goes to the shelf. Shelves are looked at daily by the team that
owns the reader, and are never emptied without a look.
""",
    "api-style.md": """# How our interfaces look

## Names and times

Nouns in the plural, words joined by hyphens, times in UTC with a Z at the end, money as whole
cents with a currency beside it. Never a float for money.

## Errors

A code of the service's own with three letters and a number, a sentence for people, and the name
of the field. The same mistake always has the same code.

## Versions

Adding a field is no new version, and readers skip what they don't know. Taking one away is, and
the old version is answered for a year after the last partner was told.
""",
    "partners.md": """# Connecting a partner

## What they get

A certificate that lasts 13 months, a playground with made-up freight, and one person here whom
they may call. Sixty days before it runs out both sides get a mail.

## The check

Before the first real order they send a hundred to the playground: ten of them wrong on purpose.
All ten must come back with the error that our interface promises.

## Leaving

Three months' notice. Their orders are handed over as files, and what is personal is erased 30
days after the last delivery.
""",
    "privacy.md": """# Personal data

## What counts

Names, phone numbers, plates of trucks that belong to a person, and where a driver was. The
position of a vehicle with nobody in it doesn't.

## How long

Drivers' positions for 72 hours, then only the stretch without the person. Orders for ten years,
since the law on bookkeeping says so. Applications for six months.

## When someone asks

Anyone may ask what we have about them; the answer must be out in 30 days. Send the question to
the data protection desk on the day it comes, without answering yourself.
""",
    "dangerous-goods.md": """# Dangerous goods

## Before loading

The order names the UN number and the class. A driver with the certificate signs at the dock, and
classes 1 and 5.2 never share a truck with anything.

## On the way

Tunnels of category E are closed to most of it; the plan takes care, the driver decides. No stop
in villages, and the papers lie in the cab where a fireman finds them.

## When it leaks

Away from it, against the wind, 112, and then the number on the orange plate. Freight is worth
nothing.
""",
    "docks.md": """# Loading docks

## Slots

A dock is booked in slots of 40 minutes. Who comes more than 15 late loses it and waits for the
next free one. Perishables go first in any case.

## Seals

Each trailer is sealed with a numbered seal, and the number is typed into the order by the one who
closes the door. A seal that doesn't match stops the unloading until the shift lead has seen it.

## Night

From ten to six no reversing alarms: a second person walks behind. The neighbours have been
patient.
""",
    "cold-chain.md": """# Keeping it cold

## Limits

Fish 2 degrees, meat 4, medicines between 2 and 8, frozen goods minus 18. A sensor in the trailer
writes the temperature every three minutes.

## When it gets warm

Above the limit for ten minutes the driver gets a call, for thirty the goods are held back at
arrival and the customer decides. Code THM-9 on the paper means that the sensor was silent, which
counts as warm.

## Cleaning

After fish the trailer is washed with hot water and stands open for two hours. Nobody loads bread
after fish on the same day, however good the washing was.
""",
    "meetings.md": """# Talking to each other

## Less of it

No meetings on Tuesdays and Thursdays before two. Whoever invites writes what is to be decided;
without that you may stay away.

## Writing

Anything that should hold for longer than a month is a page here, of one screen if possible, with
a date and a name. Chat is for today.

## Disagreeing

Say it before the decision, help afterwards. A decision is looked at again when there is a new
fact, not a new mood.
""",
}

QUESTIONS: list[Question] = [
    # The very words: codes, names, commands.
    Question("What does FRY-330 mean?", "ferry.md", "words"),
    Question("QUA-014", "quay.md", "words"),
    Question("CRN-19 in the log of last night", "crane.md", "words"),
    Question("TLY-77", "tally.md", "words"),
    Question("error BCN-31", "beacon.md", "words"),
    Question("what is WTW-40", "watchtower.md", "words"),
    Question("OBS-12", "metrics.md", "words"),
    Question("DB-57014", "databases.md", "words"),
    Question("the paper says THM-9", "cold-chain.md", "words"),
    Question("shipctl divert", "ferry.md", "words"),
    Question("crane abort", "crane.md", "words"),
    Question("shipctl db new", "databases.md", "words"),
    Question("UN number", "dangerous-goods.md", "words"),
    # The meaning: hardly a word of the question is in the answer.
    Question("How many vacation days do employees get?", "leave.md", "meaning"),
    Question("I caught the flu, whom do I inform?", "leave.md", "meaning"),
    Question("Can I get reimbursed for a hotel?", "expenses.md", "meaning"),
    Question("My credit card has disappeared", "expenses.md", "meaning"),
    Question("What happens on a new employee's first morning?", "onboarding.md", "meaning"),
    Question("Is deploying on a weekend allowed?", "releases.md", "meaning"),
    Question("How do I undo a bad deployment?", "releases.md", "meaning"),
    Question("How do we write a postmortem?", "incidents.md", "meaning"),
    Question("How often must the public be updated during an outage?", "incidents.md", "meaning"),
    Question("compensation for standby duty", "oncall.md", "meaning"),
    Question("How much data could we lose in a disaster?", "backups.md", "meaning"),
    Question("I pushed a password to GitHub by accident", "secrets.md", "meaning"),
    Question("Somebody stole my notebook on the train", "laptops.md", "meaning"),
    Question("cardinality rules for monitoring", "metrics.md", "meaning"),
    Question("messages may be delivered more than once", "queues.md", "meaning"),
    Question("backwards compatibility of the REST API", "api-style.md", "meaning"),
    Question("GDPR request for access to one's own information", "privacy.md", "meaning"),
    Question("What to do in a chemical spill?", "dangerous-goods.md", "meaning"),
    Question("refrigerator temperature for vaccines", "cold-chain.md", "meaning"),
    Question("truck arrived too late at the warehouse", "docks.md", "meaning"),
    # The place: the paragraph itself doesn't say what it is about.
    Question("How long does it take to restart Ferry?", "ferry.md", "context"),
    Question("Who is paged when Watchtower fails at night?", "watchtower.md", "context"),
    Question("May I restart Tally at the end of the month?", "tally.md", "context"),
    Question("Rate limit of Beacon", "beacon.md", "context"),
    Question("Quay is down at three in the morning, what now?", "quay.md", "context"),
    Question("How large may a plan of Crane be?", "crane.md", "context"),
    Question("What must be done before Quay is restarted?", "quay.md", "context"),
    Question("Restarting the identity service on both sites", "watchtower.md", "context"),
    Question("Does a failing invoice service wake anybody?", "tally.md", "context"),
]
