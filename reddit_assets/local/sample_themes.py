"""What the sample's subreddits talk about: per topic things, troubles and remedies.

Invented text; nothing is quoted. The sentences are put together in ``sample.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["THEMES", "Topic"]


@dataclass(frozen=True)
class Topic:
    """A topic's vocabulary. Each is a list of alternatives separated by ``|``."""

    name: str
    things: str
    troubles: str
    remedies: str


THEMES: dict[str, tuple[Topic, ...]] = {
    "AskHistorians": (
        Topic(
            "Roman roads and legions",
            "the Via Appia|Roman legionaries|the frontier forts|Trajan's column|milestones in Gaul",
            "sources contradict each other about marching distances|nobody agrees who paid the road"
            " crews|the supply trains are hardly mentioned by Caesar|late antique maps are copies",
            "read Vegetius with care|compare the milestones with the itineraries|look at the"
            " Vindolanda tablets|follow the archaeology rather than the annals",
        ),
        Topic(
            "medieval guilds",
            "the weavers' guild|apprentices in Bruges|Hanseatic merchants|guild charters|the cloth"
            " halls",
            "women's work vanishes from the records|the fees kept poor journeymen out|quality seals"
            " were forged all the time|town councils and guilds quarrelled for decades",
            "start with the municipal accounts|the court rolls tell more than the charters|compare"
            " Florence and Ghent|see how the guilds handled widows",
        ),
        Topic(
            "the Cold War",
            "the Cuban missile crisis|Checkpoint Charlie|declassified telegrams|the Politburo|NATO"
            " exercises",
            "the archives in Moscow closed again|memoirs of diplomats contradict the minutes|the"
            " hotline was slower than people think|both sides misread Able Archer",
            "use the national security archive|read Soviet and American minutes side by side|treat"
            " memoirs as argument, not evidence|look at what the East Germans wrote down",
        ),
    ),
    "Cooking": (
        Topic(
            "sourdough bread",
            "my sourdough starter|a rye levain|the second proof|my dutch oven|a wet dough",
            "the crumb stays dense and gummy|the crust is pale|it spreads flat on the peel|the"
            " starter smells of acetone",
            "feed the starter twice a day|lower the hydration to sixty-eight percent|let it proof"
            " in the fridge overnight|bake with the lid on for twenty minutes",
        ),
        Topic(
            "cast iron pans",
            "a cast iron skillet|the seasoning|grandma's old pan|flaxseed oil|a carbon steel wok",
            "eggs stick like glue|the seasoning flakes off|rust appears after every wash|everything"
            " tastes of metal",
            "wipe on the thinnest film of oil and bake it hot|never soak it|preheat slowly on a low"
            " flame|scrub with coarse salt",
        ),
        Topic(
            "weeknight curries",
            "a chickpea curry|garam masala|coconut milk|toasted cumin|a jar of tikka paste",
            "the sauce splits|it tastes flat and only hot|the spices stay gritty|the rice is mush",
            "bloom the spices in oil first|add a squeeze of lime at the end|cook the onions until"
            " they are really brown|salt early and taste often",
        ),
        Topic(
            "knives",
            "my chef's knife|a whetstone|a santoku|the honing rod|a cheap paring knife",
            "the edge is gone after a week|it chips on squash|tomatoes get crushed instead of cut|I"
            " cannot hold the angle",
            "start on a one thousand grit stone|use a wooden board, never glass|strop on leather"
            " after each sharpening|let the weight of the blade do the work",
        ),
    ),
    "Fitness": (
        Topic(
            "squats and deadlifts",
            "my squat|a heavy deadlift|the low bar position|lifting shoes|the third work set",
            "my knees cave in|my lower back rounds|I stall at the same weight every month|my hips"
            " shoot up first",
            "brace before you unrack|film yourself from the side|drop ten percent and build up"
            " again|push the floor away instead of pulling",
        ),
        Topic(
            "running a first marathon",
            "my long run|an easy pace|the taper|interval training|new running shoes",
            "my shins hurt after ten kilometres|I hit the wall at thirty|my heart rate is far too"
            " high|I never sleep before a race",
            "run slower than feels right|add ten percent a week at most|eat on the long runs as you"
            " will in the race|replace the shoes after eight hundred kilometres",
        ),
        Topic(
            "eating for muscle",
            "protein powder|a calorie surplus|meal prep|creatine|chicken and rice",
            "I cannot eat that much|the scale does not move|bulking only makes me soft|it gets"
            " boring by Wednesday",
            "weigh the food for two weeks|aim for a small surplus|drink some of the calories|eat"
            " the same breakfast every day",
        ),
    ),
    "gardening": (
        Topic(
            "tomatoes",
            "my tomato plants|a beefsteak variety|the raised bed|cherry tomatoes|tomato seedlings",
            "the leaves curl and turn yellow|blossom end rot takes half of them|they split after"
            " every rain|blight came in August",
            "water deeply and seldom|prune the side shoots|mulch with straw|give them calcium and"
            " patience",
        ),
        Topic(
            "compost",
            "the compost heap|kitchen scraps|a worm bin|brown leaves|the tumbler",
            "it smells like a swamp|nothing rots at all|rats found it|it is full of fruit flies",
            "add more cardboard|turn it every week|keep it as moist as a wrung-out sponge|bury the"
            " peels in the middle",
        ),
        Topic(
            "roses and pruning",
            "a climbing rose|my old hydrangea|the secateurs|a hedge of lavender|bare-root roses",
            "black spot covers the leaves|aphids cover every bud|it has not flowered for two"
            " years|the frost killed the new shoots",
            "cut to an outward-facing bud|prune in late winter|strip and burn the sick leaves|feed"
            " it after the first bloom",
        ),
    ),
    "personalfinance": (
        Topic(
            "paying off debt",
            "my credit card balance|a student loan|the avalanche method|a consolidation loan|the"
            " minimum payment",
            "the interest eats every payment|I borrowed from one card to pay another|collectors"
            " call at work|I have no emergency fund",
            "list every debt with its rate|pay the dearest one first|call and ask for a lower"
            " rate|keep one month of expenses aside",
        ),
        Topic(
            "index funds and retirement",
            "an index fund|my retirement account|the employer match|a target date fund|bond funds",
            "I started ten years too late|the fees are hidden|the market fell right after I"
            " bought|I cannot tell the accounts apart",
            "take the whole match first|choose the cheapest broad fund|set it to automatic and do"
            " not look|rebalance once a year",
        ),
        Topic(
            "renting or buying",
            "a mortgage|our first house|the down payment|closing costs|a rental flat",
            "the monthly costs look the same|we may move in three years|the inspection found a bad"
            " roof|rates went up again",
            "count taxes, repairs and your time|use a rent or buy calculator|never skip the"
            " inspection|do not put every cent into the down payment",
        ),
    ),
    "space": (
        Topic(
            "rockets and landing",
            "the booster|a reusable upper stage|methane engines|the launch tower|a drone ship",
            "the engine failed to relight|wind at altitude scrubbed the launch|the heat shield lost"
            " tiles|the legs did not lock",
            "watch the telemetry, not the commentary|fly more often and learn|test the valves"
            " cold|read the mishap report first",
        ),
        Topic(
            "telescopes and galaxies",
            "the infrared telescope|a distant galaxy|gravitational lensing|the deep field"
            " image|redshift surveys",
            "the early galaxies look too bright|dust hides the core|the two distance ladders"
            " disagree|the signal is close to the noise",
            "wait for the spectra|compare with the simulations|look at the raw exposures|remember"
            " how small the field of view is",
        ),
        Topic(
            "backyard astronomy",
            "my eight inch dobsonian|Saturn's rings|a star tracker|cheap eyepieces|the Orion"
            " nebula",
            "everything wobbles in the slightest wind|city lights wash out the sky|the mirror needs"
            " collimation|my photos show only trails",
            "let the mirror cool down for an hour|drive twenty minutes out of town|start with"
            " binoculars|stack many short exposures",
        ),
    ),
    "cycling": (
        Topic(
            "commuting by bike",
            "my commuter bike|a pannier bag|the bike lane|winter tyres|a dynamo light",
            "cars pass far too close|my back is soaked when I arrive|the lane ends in a"
            " junction|the chain rusts in winter",
            "take the lane where it is narrow|keep a shirt at the office|fit real mudguards|clean"
            " the chain on Sundays",
        ),
        Topic(
            "gears and maintenance",
            "the rear derailleur|a new cassette|tubeless tyres|hydraulic brakes|the bottom bracket",
            "it skips under load|the brakes squeal in the rain|the sealant dried out|something"
            " creaks at every pedal stroke",
            "measure the chain before you buy anything|straighten the hanger|bed the pads in"
            " properly|grease the seat post first",
        ),
        Topic(
            "long climbs",
            "a two hour climb|my power meter|a compact crankset|the alpine passes|an energy gel",
            "my legs are empty near the top|I start too fast every time|my hands go numb on the"
            " descent|I cramp in the heat",
            "sit and spin a lower gear|eat before you are hungry|hold back for the first third|"
            "carry a wind jacket",
        ),
    ),
    "photography": (
        Topic(
            "street and film cameras",
            "a thirty-five millimetre film camera|street portraits|black and white film|a"
            " rangefinder|contact sheets",
            "people notice me and freeze|the light meter is dead|the negatives came back thin|film"
            " costs a fortune",
            "set the focus by zone|learn to guess the exposure|overexpose by a stop|wait at one"
            " corner for an hour",
        ),
        Topic(
            "lenses and sharpness",
            "a fifty millimetre prime|the kit zoom|autofocus|a sturdy tripod|the aperture ring",
            "the corners are soft|focus lands on the ears|everything is blurred at dusk|the zoom"
            " creeps",
            "stop down two clicks|use a single focus point|raise the shutter speed before the"
            " aperture|try before you upgrade",
        ),
        Topic(
            "editing raw files",
            "my raw files|the white balance|a luminosity mask|the histogram|skin tones",
            "prints come out too dark|greens look radioactive|I cannot stop moving sliders|the sky"
            " is blown out",
            "calibrate the screen|edit tomorrow what you shot today|expose for the highlights|make"
            " a small print first",
        ),
    ),
    "learnprogramming": (
        Topic(
            "first steps in Python",
            "a Python list|my for loop|a dictionary|virtual environments|the indentation error",
            "it works in the shell and not in the script|I forget everything after the tutorial|the"
            " function returns None|two versions are installed",
            "print what you think is there|write something small every day|read the last line of"
            " the traceback first|make a new environment for each project",
        ),
        Topic(
            "git",
            "a merge conflict|my feature branch|git rebase|the staging area|a detached head",
            "I committed a password|my changes are gone|the history looks like spaghetti|push was"
            " rejected again",
            "the reflog remembers nearly everything|commit small things often|never rewrite what"
            " others have pulled|draw the graph on paper",
        ),
        Topic(
            "finding a job as a developer",
            "my portfolio|a junior position|whiteboard interviews|my resume|a bootcamp certificate",
            "a hundred applications and no answer|they want five years for an entry job|I freeze"
            " when somebody watches|the take-home task took a week",
            "show one finished thing|ask people you know|practise out loud|apply although you miss"
            " half of the list",
        ),
    ),
    "Parenting": (
        Topic(
            "sleep",
            "our newborn|bedtime|the nap schedule|a night light|the four month regression",
            "she wakes every forty minutes|he only sleeps on my chest|bedtime takes three hours|we"
            " have not slept since March",
            "keep the same order every evening|take turns, really|an earlier bedtime often helps|it"
            " is a phase and it passes",
        ),
        Topic(
            "school and homework",
            "second grade homework|the teacher meeting|reading at home|screen time|maths"
            " worksheets",
            "he cries over every worksheet|she says school is boring|the tablet ends in a fight|the"
            " teacher never answers",
            "sit beside her without correcting|set a timer and stop when it rings|ask what was"
            " funny today|write the teacher one short question",
        ),
        Topic(
            "picky eaters",
            "broccoli|the high chair|family dinner|a lunch box|plain pasta",
            "he eats three things in all|she throws the plate|every dinner is a negotiation|the"
            " lunch box comes back full",
            "put it on the table and say nothing|let them help cooking|one safe thing on every"
            " plate|offer it fifteen times",
        ),
    ),
    "homebrewing": (
        Topic(
            "fermentation",
            "my first pale ale|dry yeast|the airlock|a fermentation fridge|a krausen",
            "it stopped at one thousand and twenty|it smells of green apples|the airlock never"
            " bubbled|the temperature swings by six degrees",
            "pitch more yeast|trust the hydrometer and not the airlock|give it another week|keep it"
            " below twenty degrees",
        ),
        Topic(
            "bottling and carbonation",
            "swing-top bottles|priming sugar|a keg|the bottling bucket|carbonation drops",
            "half the bottles are flat|two of them exploded|there is a film on top|it foams all"
            " over the kitchen",
            "weigh the sugar|stir it in gently|wait three weeks at room temperature|clean, then"
            " sanitise, then touch nothing",
        ),
        Topic(
            "hops and recipes",
            "late hop additions|Citra hops|a New England recipe|crystal malt|water chemistry",
            "the bitterness is harsh|all the aroma is gone after a month|it turned brown in the"
            " keg|my efficiency is terrible",
            "add them after the boil|keep oxygen out at all costs|crush finer|start with soft water"
            " and add salts",
        ),
    ),
    "Kaffeeküche": (
        Topic(
            "Espresso",
            "der Siebträger|die Mühle|frisch geröstete Bohnen|der Brühdruck|ein doppelter Espresso",
            "er läuft in zwölf Sekunden durch|er schmeckt sauer und dünn|die Crema fällt sofort"
            " zusammen|die Mühle verklumpt",
            "feiner mahlen und genau abwiegen|zwei Grad heißer brühen|gleichmäßig tampern|die"
            " Bohnen zehn Tage ruhen lassen ☕",
        ),
        Topic(
            "Filterkaffee",
            "der Handfilter|die Karaffe|ein äthiopischer Kaffee|das Wasser|die Papierfilter",
            "er wird bitter|das Wasser ist viel zu hart|er tropft ewig|er schmeckt nach Papier",
            "langsam in Kreisen gießen|den Filter vorher spülen|mit sechzig Gramm pro Liter"
            " anfangen|gefiltertes Wasser nehmen 😊",
        ),
    ),
    "日本旅行": (
        Topic(
            "京都",
            "清水寺|嵐山の竹林|京都の旅館|早朝の伏見稲荷|祇園の路地",
            "どこも人が多すぎる|バスに乗れない|宿が高い|紅葉の時期は予約が取れない",
            "朝六時に行くといい|地下鉄とバスを組み合わせる|二か月前に予約する|雨の日を選ぶ 🍁",
        ),
        Topic(
            "鉄道",
            "新幹線の切符|青春18きっぷ|駅弁|夜行列車|在来線の旅",
            "切符の種類が多くて分からない|荷物を置く場所がない|乗り換えの時間が短い|指定席が売り切れた",
            "早割を調べる|各駅停車でゆっくり行く|窓側の席を取る|前の日に駅で買う 🚄",
        ),
    ),
    "tinytown": (
        Topic(
            "a very small town",
            "the bakery on Main Street|the town fair|the only traffic light",
            "nobody can agree on the date|it has been out of order since spring",
            "ask at the post office|come to the meeting on Thursday",
        ),
    ),
}
