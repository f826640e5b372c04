"""English function words and Reddit's own noise, which name no cluster."""

from __future__ import annotations

__all__ = ["STOP_WORDS"]

_TEXT = """
    a able about above actually after again against ago all almost already also although always am
    an and another any anybody anyone anything anyway anywhere are aren aren't around as ask asked
    asking at away back basically be became because become been before being below best better
    between big bit both but by call came can can't cannot cant come comes coming completely could
    couldn couldn't currently day days definitely did didn didn't different do does doesn doesn't
    doing don don't done dont down due during each either else end enough especially etc even ever
    every everybody everyone everything exactly except far feel few find first following for found
    from full fully further general get gets getting give given go goes going gone gonna good got
    gotten great guess guys had hadn hadn't happen happened hard has hasn hasn't have haven haven't
    having he he'd he'll he's hello help hence her here hers herself hey hi him himself his hope
    hoping how how's however i i'd i'll i'm i've idea if im in instead into is isn isn't issue it
    it'd it'll it's its itself ive just keep kind kinda know last later least left less let let's
    lets like likely little ll long longer look looking looks lot lots made make makes making many
    may maybe me mean means might mine more most mostly much must my myself need needed needs
    neither never new next no nobody non none nor not nothing now of off often ok okay old on once
    one ones only onto open or other others otherwise our ours ourselves out over own part people
    perhaps person please point possible post pretty probably problem put question questions quite
    quick rather re read real really reason recently reddit right said same saw say saying says see
    seem seemed seems seen set several shall she she'd she'll she's should shouldn shouldn't since
    so some somebody somehow someone something sometimes somewhat somewhere soon sort start started
    still stuff sub subreddit such suggestions sure take taken takes taking tell than thank thanks
    that that's thats the their theirs them themselves then there there's theres these they they'd
    they'll they're they've thing things think thinking this those though thought three through
    thus time times title to today together too took totally toward towards tried true try trying
    two type under unless until up upon us use used uses using usually ve very via want wanted
    wants was wasn wasn't way ways we we'd we'll we're we've well went were weren weren't what
    what's whatever when where whether which while who who's whole whom whose why will with within
    without won won't wonder wondering work worked working works would wouldn wouldn't wrong yeah
    year years yes yet you you'd you'll you're you've your yours yourself yourselves
    amp bot comment comments deleted edit edited faq gt http https karma lt mod moderator
    moderators nbsp nsfw op posted posting posts quot redd redditor redditors removed repost rule
    rules spoiler thread threads tldr upvote upvotes www x200b
"""

STOP_WORDS = frozenset(_TEXT.split())
