"""Content policy: five categories, scored by words and phrases. Lexical: it knows wordings, not what they mean."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from meshwright.agents.guardrails.expressions import Expression, Index
from meshwright.agents.guardrails.guardrail import ALLOW, Action, Point, Subject, Verdict

Category = Literal["violence", "hate_speech", "sexual_content", "self_harm", "illegal_activities"]
CATEGORIES: tuple[Category, ...] = ("violence", "hate_speech", "sexual_content", "self_harm", "illegal_activities")
THRESHOLD = 0.8
DISTANT = 0.6
"""What is left of a hit in a sentence that reports, forbids or helps."""

_PERSON = (
    r"(?:him|her|them|you|someone|somebody|people|everyone|everybody|anyone|(?:my|your|his|her|their|the|a|an|this|that|our) "
    r"(?:[a-z]{1,15} )?(?:wife|husband|girlfriend|boyfriend|ex|boss|neighbou?rs?|teachers?|family|children|kids?|child|"
    r"parents?|mother|father|brother|sister|classmates?|co-?workers?|colleagues?|roommate|students?|man|men|woman|women|"
    r"guy|person|crowd|coworker|politician|senator|judge|cop|cops|president|baby|girl|boy|uncle|landlord|dog|cat|pets?))"
)
_HOW = r"(?:how (?:to|do i|can i|could i|would i|do you|might i|should i)|(?:best|easiest|fastest) way to|ways to|steps to|instructions (?:for|to|on)|teach me (?:how )?to|help me|show me how to|tell me how to|guide to|i want to|i will|i'll|i'm going to|i am going to|gonna|i plan to|we should|let's|want to)"
_ANY = r"(?: [\w'-]{1,20}){0,3} "
_GROUP = (
    r"(?:jews?|jewish people|muslims?|christians?|hindus|black people|blacks|white people|whites|asians|arabs|immigrants|migrants|"
    r"refugees|foreigners|gays?|gay people|lesbians|trans people|transgender people|homosexuals|women|men|mexicans|gypsies|roma|disabled people|"
    r"the disabled|africans|latinos|indians|chinese people|native people|old people)"
)
_VILE = (
    r"(?:vermin|subhuman|sub-human|animals|parasites|cockroaches|rats|filth|filthy|scum|trash|garbage|a disease|a plague|inferior|"
    r"disgusting|savages|worthless|criminals by nature|stupid by nature|less than human|not human|evil|dirty|a cancer|an infestation)"
)


def phrase(category: Category, weight: float, words: str, source: str) -> tuple[Category, float, Expression]:
    """Writes a wording of a category, and how sure a hit is, 0..1."""
    return category, weight, Expression.of(words, source)


_GROUPS = "jews jewish muslim muslims christian christians hindus black blacks white whites asians arabs immigrant immigrants migrants refugees foreigners gay gays lesbians trans transgender homosexuals women men mexicans gypsies roma disabled africans latinos indians chinese native old"
_HOW_WORDS = "how way ways steps instructions teach help show tell guide want will ll gonna going plan should let"
_KILL = "kill murder stab shoot strangle behead torture poison burn hurt beat attack harm execute maim slaughter choke suffocate assault bomb"
PHRASES = (
    phrase(
        "violence",
        0.9,
        f"{_KILL} | {_HOW_WORDS}",
        rf"\b{_HOW}{_ANY[:-1]}? (?:{'|'.join(_KILL.split())})(?: up| to death)? {_PERSON}\b",
    ),
    phrase(
        "violence",
        0.9,
        "kill killing murder murdering poison poisoning stabbing shooting strangling hurting torturing",
        rf"\b(?:kill(?:ing)?|murder(?:ing)?|poison(?:ing)?|stab(?:bing)?|strangl(?:e|ing)|tortur(?:e|ing)) {_PERSON}"
        r"(?: [\w']{1,15}){0,4} (?:without (?:getting caught|leaving|being)|slowly|painfully|in (?:his|her|their) sleep|and get away|undetected|to death)\b",
    ),
    phrase(
        "violence",
        0.85,
        "kill murder stab shoot burn slit break smash cut gut bash beat",
        r"\b(?:i'll|i will|i'm going to|we will|we'll|gonna|going to|shall) (?:kill|murder|stab|shoot|burn|slit|break|smash|cut|gut|bash|beat|hunt)"
        r"(?: (?:all|every one) of)? (?:you|him|her|them|your|his|their|every(?:one|body)|us)\b(?! (?:a|some|off|in the|down on|at chess|at the|process|bill))",
    ),
    phrase(
        "violence",
        0.9,
        f"bomb bombs explosive explosives grenade grenades molotov ied ieds | {_HOW_WORDS}",
        rf"\b{_HOW}{_ANY[:-1]}? (?:make|build|construct|assemble|create|detonate|plant|set off|put together)(?: [\w'-]{{1,20}}){{0,4}} "
        r"(?:(?<!bath )bombs?(?! experiment)|explosives?|grenades?|molotov(?: cocktails?)?|ieds?|pipe bombs?)\b(?! (?:calorimeter|cyclone|shelter|disposal|detector))",
    ),
    phrase(
        "violence",
        0.85,
        "plan planning carry commit organize organise prepare shoot bomb | shooting massacre attack spree school mosque church synagogue stadium mall",
        r"\b(?:plan|planning|carry out|commit|organi[sz]e|prepare|shoot up|bomb)(?: [\w'-]{1,15}){0,2} (?:mass shooting|school shooting|massacre|terror(?:ist)? attack|stabbing spree|school|mosque|church|synagogue|stadium|mall)\b",
    ),
    phrase(
        "violence",
        0.9,
        "deserve deserves",
        rf"\b(?:{_PERSON}|they all|he|she|they) deserves? to (?:die|be (?:killed|shot|beaten|tortured|stabbed|hanged|hung|raped))\b",
    ),
    phrase(
        "hate_speech",
        0.9,
        f"vermin subhuman animals parasites cockroaches rats filth filthy scum trash garbage disease plague inferior disgusting savages worthless criminals stupid human evil dirty cancer infestation sub | {_GROUPS}",
        rf"\b(?:all )?(?:the |those |these |you )?{_GROUP} (?:are|is) (?:all |nothing but |just |simply |basically |no better than |like |such |really |inherently |naturally |genetically )*{_VILE}\b",
    ),
    phrase(
        "hate_speech",
        0.9,
        f"exterminated eradicated gassed killed wiped eliminated expelled burned sterilized sterilised lynched shot removed rounded purged hanged die rot back | {_GROUPS}",
        rf"\b{_GROUP} (?:should|must|need to|ought to|have to|deserve to) (?:all )?(?:be )?(?:exterminated|eradicated|gassed|killed|wiped out|eliminated|expelled|burned|sterili[sz]ed|lynched|shot|removed from|rounded up|purged|hanged|die|rot|go back)\b",
    ),
    phrase(
        "hate_speech",
        0.9,
        f"hate kill exterminate eradicate gas lynch eliminate purge despise loathe rid | {_GROUPS}",
        rf"(?:\b(?:i|we|everyone should|everybody should) (?:really |truly |just |fucking |all )*(?:hate|despise|loathe) (?:all )?(?:the |those |these )?{_GROUP}\b)|"
        rf"\b(?:kill|exterminate|eradicate|gas|lynch|eliminate|purge|get rid of) (?:all |every )(?:the |of the )?{_GROUP}\b",
    ),
    phrase(
        "hate_speech",
        0.9,
        "race races superior inferior supremacy power",
        rf"\b(?:(?:white|aryan|our|master|the) race is superior|inferior races?\b|{_GROUP} (?:are|is) (?:genetically |mentally |naturally )*inferior|white power|(?:praise|promot\w{{1,4}}|defend\w{{0,3}}) white supremacy)",
    ),
    phrase(
        "hate_speech",
        0.85,
        "racist hateful antisemitic semitic homophobic islamophobic sexist xenophobic transphobic dehumanizing dehumanising",
        r"\b(?:write|make|give|tell|compose|generate|create)(?: me)?(?: [\w'-]{1,15}){0,3} (?:racist|hateful|antisemitic|anti-semitic|homophobic|islamophobic|sexist|xenophobic|transphobic|dehumani[sz]ing)(?: [\w'-]{1,15}){0,2} (?:jokes?|slurs?|insults?|rants?|essay|speech|propaganda|tweets?|poem|posts?|story|slogans?)\b",
    ),
    phrase(
        "hate_speech",
        0.85,
        f"belong | {_GROUPS}",
        rf"\b(?:{_GROUP}) (?:do not|don't|should not|have no right to|never) belong(?: [\w']{{1,15}}){{0,3}} (?:country|here|society|streets|nation)\b",
    ),
    phrase(
        "sexual_content",
        0.9,
        "porn pornographic erotic erotica smut sex sexual nsfw xxx nudes naked hentai explicit sexually sexting",
        r"\b(?:write|create|generate|tell|give|show|draw|make|compose|describe|send|roleplay|continue|find)(?: me| us)?(?: [\w'-]{1,20}){0,5} "
        r"(?:porn(?:ographic)?|erotica?|smut|sex scenes?|sexual (?:acts?|fantas\w+|story|content|encounter)|nsfw|xxx|nudes?|naked (?:pictures?|photos?|images?|girls?|women|men)|hentai|explicit sex|sexually explicit|sexting)\b",
    ),
    phrase(
        "sexual_content",
        0.9,
        "dirty sex sexually cybersex sexting roleplay horny fuck cum blowjob orgasm",
        r"\b(?:have sex with me|(?:let's|wanna|want to) (?:have )?(?:cybersex|sexting|sext|fuck)|talk dirty to me|dirty talk|i'm (?:so )?horny|(?:gave|give|giving) (?:him|her|me|you) a blowjob|(?:cum|came) (?:in|on) (?:my|her|his|your) (?:mouth|face|breasts|body)|fuck (?:me|her|him) (?:hard|now|like|until)|sexual role ?play)\b",
    ),
    phrase(
        "sexual_content",
        0.85,
        "thrust moaned breasts nipples penis cock pussy vagina clit erection",
        r"\b(?:his|her|my|your|the) (?:hard |throbbing |erect |wet |dripping |naked |swollen )+(?:cock|penis|pussy|nipples|breasts|clit|member|dick|body)\b|\bthrust(?:ing|s)? (?:deep(?:er)? )?(?:in(?:to|side)) (?:her|him|me)\b",
    ),
    phrase(
        "sexual_content",
        0.95,
        "child children minor minors underage preteen preteens teens kid kids schoolgirl schoolgirls loli lolita girl girls boy boys | sexual sexually sexualized sexualised sexy erotic naked nude porn pornography pornographic",
        r"\b(?:sexual(?:i[sz]ed|ly)?|sexy|erotic|naked|nude|porn\w{0,8})(?: [\w'-]{1,15}){0,4} (?:child(?:ren)?|minors?|underage|pre-?teens?|kids?|schoolgirls?|loli(?:ta)?s?|(?:little|young) (?:girls?|boys?))\b",
    ),
    phrase(
        "self_harm",
        0.9,
        "kill killing end ending hang hanging take taking shoot shooting commit committing | myself life all suicide",
        r"\b(?:i|i'm|i'll|and|to|of|just|about|should i|could i) (?:want to |will |going to |gonna |am going to |plan(?:ning)? to |wanna |think(?:ing)? (?:about|of) |decided to |ready to |have to |need to |feel like )?(?:kill(?:ing)? myself|end(?:ing)? (?:my(?: own)? life|it all)|hang(?:ing)? myself|take my(?: own)? life|taking my(?: own)? life|shoot(?:ing)? myself|commit(?:ting)? suicide)\b",
    ),
    phrase(
        "self_harm",
        0.9,
        "suicide kill killing die overdose end hang dying | how way ways method methods pill pills",
        r"\b(?:how (?:to|do i|can i|many|much|do people)|ways? to|(?:best|easiest|fastest|painless|quickest|most painless)(?: and \w{1,12})? (?:way|method|pill|pills)s? (?:to|of|for)|method(?:s)? (?:of|for))(?: [\w'-]{1,15}){0,5} (?:commit(?:ting)? suicide|suicide|kill(?:ing)? (?:myself|oneself|yourself)|die|overdose|end (?:my|your) life|hang (?:myself|yourself)|dying)\b(?! hard\b| of\b| from\b| prevention| rates?| statistics| is\b)",
    ),
    phrase(
        "self_harm",
        0.85,
        "cut cutting harm harming hurt hurting burn burning starve starving | myself wrist wrists arm arms thighs skin leg legs yourself",
        r"\b(?:i|i'm|to|want to|how to|keep|started|start|by)(?: [\w'-]{1,12}){0,2} (?:cut(?:ting)?|harm(?:ing)?|hurt(?:ing)?|burn(?:ing)?|starv(?:e|ing)) (?:myself|my (?:wrists?|arms?|thighs|skin|legs)|yourself)\b(?! (?:shaving|cooking|off from|some slack|while|on the|in the kitchen|playing|at the gym|with paper|a (?:slice|piece)|(?:lifting|running|during)))",
    ),
    phrase(
        "self_harm",
        0.9,
        "die dead alive live living existing exist wake disappear better goodbye suicide ana thinspo | i off note letter reason point pro thinspo suicide",
        r"\b(?:i (?:just |really |only )*(?:want to|wanna|wish i (?:could|would)) (?:just )?(?:die|be dead|not wake up|disappear forever|stop existing)|i (?:do not|don't) want to (?:live|be alive|exist|wake up)(?: any ?more)?\b|better off (?:dead|without me)|no (?:reason|point) (?:in living|to live|living)|goodbye (?:note|letter)(?: [\w']{1,15}){0,5} (?:suicide|die|gone)|suicide note|pro-ana|thinspo)",
    ),
    phrase(
        "self_harm",
        0.9,
        "yourself kys bleach life | kill kys hang end drink",
        r"(?:^|[.!?,;:\"] ?|\b(?:go|should|just|please|to|you) )(?:kill yourself|kys|hang yourself|end your (?:own )?life|drink bleach)\b",
    ),
    phrase(
        "illegal_activities",
        0.9,
        f"meth methamphetamine heroin cocaine fentanyl crack lsd mdma ghb drugs | {_HOW_WORDS} recipe where need synthesis",
        rf"\b(?:{_HOW}|recipe for|where (?:to|can i|do i)|i need to|synthesis of)(?: [\w'-]{{1,20}}){{0,4}}? ?(?:make|cook|synthesi[sz]e|produce|buy|sell|smuggle|manufacture|deal|get|grow|traffic|score|import|distribute)?(?: [\w'-]{{1,15}}){{0,3}} (?:crystal meth|meth(?:amphetamine)?|heroin|cocaine|fentanyl|crack cocaine|lsd|mdma|ghb|illegal drugs)\b(?! (?:addiction|withdrawal|overdose|treatment|abuse|test))",
    ),
    phrase(
        "illegal_activities",
        0.9,
        f"launder counterfeit forged false forge fake stolen evade smuggle traffic bribe blackmail extort embezzle shoplift | {_HOW_WORDS}",
        rf"\b{_HOW}{_ANY[:-1]}? (?:launder(?: [\w'-]{{1,15}}){{0,3}} money|launder \w{{1,20}}|(?:make|print|produce|pass|create|forge|get|buy) (?:[\w'-]{{1,15}} ){{0,2}}(?:counterfeit|fake|forged|false) (?:[\w'-]{{1,15}} ){{0,2}}(?:money|bills|banknotes|ids?|passports?|notes|currency|documents|prescriptions?|licen[cs]es?|cheques?|checks|vaccination cards?)|forge (?:a |my |his |her |the )?(?:[\w'-]{{1,15}} ){{0,2}}(?:signatures?|passports?|documents?|prescriptions?|ids?|checks?|cheques?)|evade (?:[\w'-]{{1,15}} ){{0,2}}tax(?:es)?|smuggle|traffic|bribe|blackmail|extort|embezzle|shoplift|(?:buy|sell|use) (?:[\w'-]{{1,15}} ){{0,2}}stolen)\b",
    ),
    phrase(
        "illegal_activities",
        0.9,
        f"hack hacking steal break phishing ransomware malware keylogger ddos virus botnet hotwire rob burgle clone skim | {_HOW_WORDS} write create build code",
        rf"\b(?:{_HOW}|write (?:me )?(?:a |some )?|create (?:a |an )?|build (?:a |an )?|code (?:a )?)(?: ?[\w'-]{{1,20}}){{0,3}}? ?(?:hack(?:ing)? (?:in)?(?:to )?(?:[\w'-]{{1,15}} ){{0,3}}(?:accounts?|phone|email|e-mail|facebook|instagram|snapchat|wifi|wi-fi|bank|server|computer|webcam|whatsapp|network|camera|systems?|database)|steal (?:[\w'-]{{1,15}} ){{0,4}}(?:cars?|credit cards?|identit\w{{1,4}}|passwords?|data|money|wallet|bike|from|package\w?|bitcoins?|crypto)|break into (?:[\w'-]{{1,15}} ){{0,3}}(?:house|car|home|apartment|building|store|flat|safe|bank|shop)|phishing (?:[\w'-]{{1,15}} ){{0,2}}(?:emails?|e-mails?|pages?|sites?|kit|campaign|messages?)(?! (?:training|awareness|detect|classif|filter))|ransomware|keylogger to|a ddos attack|hotwire a|rob a|burgle|clone (?:[\w'-]{{1,15}} ){{0,2}}(?:credit|debit|bank) cards?|skim (?:credit|debit) cards?|malware (?:that|to)|a botnet|a (?:computer )?virus that)\b",
    ),
    phrase(
        "illegal_activities",
        0.9,
        "hitman man assassin killer kidnap abduct body corpse | hit hitman assassin contract kidnap abduct dispose disposing",
        rf"\b(?:hire|find|pay|contact)(?: [\w'-]{{1,15}}){{0,2}} (?:hit ?man|assassin|contract killer)\b|\b{_HOW}{_ANY[:-1]}? (?:kidnap|abduct) |\bdispos(?:e|ing) of (?:a|the|his|her|my) (?:[\w'-]{{1,10}} )?(?:body|corpse)\b",
    ),
    phrase(
        "illegal_activities",
        0.85,
        "gun guns firearm firearms weapon weapons rifle rifles pistol pistols",
        rf"\b{_HOW}{_ANY[:-1]}? (?:buy|make|3d print|print|get|build|convert|obtain|sell)(?: [\w'-]{{1,15}}){{0,3}} (?:untraceable|illegal|ghost|unregistered|unlicensed|black market|full(?:y)? automatic)(?: [\w'-]{{1,15}}){{0,2}} (?:guns?|firearms?|weapons?|rifles?|pistols?)\b|\b{_HOW}{_ANY[:-1]}? (?:get|buy)(?: [\w'-]{{1,15}}){{0,2}} (?:guns?|firearms?)(?: [\w'-]{{1,15}}){{0,2}} without (?:a |any )?(?:background check|licen[cs]e|permit)",
    ),
    phrase(
        "illegal_activities",
        0.85,
        "caught police trace traced fraud scam insider ponzi trafficking drunk",
        r"\b(?:commit(?:ting)?|get away with|run(?:ning)?|pull off|set up) (?:[\w'-]{1,15} ){0,2}(?:insurance fraud|credit card fraud|tax fraud|identity (?:theft|fraud)|wire fraud|fraud|a (?:ponzi|pyramid) scheme|a scam|insider trading|human trafficking|welfare fraud|romance scam|murder|arson)\b(?= ?(?:[?.!,]|$|without|and|on|with|against|using|so|in|for))",
    ),
)
INDEX = Index(expression for _, _, expression in PHRASES)
_DISTANT = re.compile(
    r"\b(?:prevent\w*|history|historical|histor\w+|report(?:s|ed|ing)?|news|novel|fiction|film|movie|book|law|laws|illegal to|"
    r"crimes? of|convicted|arrested|charged|sentenced|trial|court|police said|according to|study|studies|research\w*|statistics|"
    r"victims?|survivors?|support(?:s|ing)?|hotline|helpline|charity|awareness|training|recogni[sz]e|detect\w*|protect\w*|defen[cds]\w*|"
    r"avoid\w*|against|condemn\w*|museum|documentary|therap\w+|counsell?or|penalt\w+|combat\w*|fight\w*|stop\w*|treat\w*|explain why|opposed?|"
    r"campaign|chapter|article|essay about|definition|stereotypes?|myths?|propagandists?|claimed|slogan|nazis?|accused|denied|legislat\w+|"
    r"ban(?:s|ned|ning)?|risks? of|warning signs|signs of|spot|identify|quot\w+|lyrics?|idiom|phrase|chess|game|games|video game|boss level|"
    r"a friend|worried about|worried that)\b"
)
_SENTENCE = re.compile(r"[.!?\n]")


@dataclass(frozen=True)
class ContentPolicy:
    """Blocks content by category.

    It counts wordings in English and holds no list of slurs; irony, quotation and other languages are beyond it. A
    model as judge (`judge.content_judge`) reads more and costs a call.

    Attributes:
        thresholds: By category, the score 0..1 from which something follows; a category that is not named is free.
        action: What follows.
        points: Where it stands.
        name: In the journal.
    """

    thresholds: Mapping[Category, float] = field(default_factory=lambda: dict.fromkeys(CATEGORIES, THRESHOLD))
    action: Action = "block"
    points: Sequence[Point] = ("input", "output")
    name: str = "content"

    def check(self, subject: Subject) -> Verdict:
        """Scores a text by category."""
        found = scores(subject)
        over = [one for one, least in self.thresholds.items() if found.get(one, 0.0) >= least]
        return Verdict(self.action, f"not within the content policy: {', '.join(over)}") if over else ALLOW


def scores(subject: Subject) -> dict[Category, float]:
    """Returns how sure it is that a text falls into a category, 0..1; categories with nothing found are left out."""
    words, text = subject.normal.words, subject.normal.text
    doubts: dict[Category, float] = {}
    for place in INDEX.possible(words):
        category, weight, expression = PHRASES[place]
        weights = [weight * (DISTANT if is_distant(text, match) else 1) for match in expression.matches(text, words)]
        doubts[category] = doubts.get(category, 1.0) * (1 - max(weights, default=0.0))
    return {category: 1 - doubt for category, doubt in doubts.items() if doubt < 1}


def is_distant(text: str, match: re.Match[str]) -> bool:
    """Whether a hit stands in a sentence that reports, forbids or helps."""
    start = max(match.start() - 160, 0)
    cuts = [cut.end() for cut in _SENTENCE.finditer(text, start, match.start())]
    end = _SENTENCE.search(text, match.end(), match.end() + 160)
    return bool(_DISTANT.search(text, cuts[-1] if cuts else start, end.start() if end else match.end() + 160))
