"""Prompt injection: text that wants to be an instruction. Patterns over normalised text, no model."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from meshwright.agents.guardrails.expressions import Expression, Index
from meshwright.agents.guardrails.guardrail import ALLOW, Action, Point, Subject, Verdict

THRESHOLD = 0.8
DEFAULT_ACTIONS: Mapping[Point, Action] = {"input": "block", "tool_result": "ask"}
"""At `tool_result`, `ask` lets the text pass, and has a person asked before the next call that changes something."""
REASON = "the text gives orders to the model, or takes its rules away; if it is harmless, say it in other words"
QUOTED = 0.4
"""What is left of a hit that stands in quotation marks after a word that says it is talked about."""

_GAP = r"(?:[^\w\n]{1,4}[\w']{1,24}){0,5}[^\w\n]{1,4}"
_NEAR = r"(?:[^\w\n]{1,4}[\w']{1,24}){0,2}[^\w\n]{1,4}"
_RULES = (
    r"(?:instructions?|prompts?|rules?|directions?|directives?|guidelines?|commands?|constraints?|polic(?:y|ies)|"
    r"restrictions?|safeguards?|guardrails?|programming|training|orders|context|messages?|conversation)"
)
_BEFORE = r"(?:previous|previously|prior|above|earlier|preceding|foregoing|existing|current|initial|original|system|safety|all|any|every|your|those|these|former|old|past)"
_AI = r"(?:ai|assistants?|agents?|llms?|language models?|chatbots?|bots?|copilots?|models?|gpt)"
_NAMED_AI = r"(?:(?:ai|virtual|digital|llm)[ -](?:assistants?|agents?|models?|systems?|bots?)|assistants?|ais?|llms?|language models?|chatbots?|gpt)"
"""Words that mean nobody else."""
_HIDDEN = (
    r"(?:system (?:prompt|message|instructions?)|(?:initial|hidden|original|secret|internal|developer|full) "
    r"(?:prompt|instructions?|message|rules|guidelines)|your (?:prompt|instructions|rules|guidelines|configuration))"
)


def pattern(weight: float, words: str, source: str) -> tuple[float, Expression]:
    """Writes a way to give an order, and how sure a hit is, 0..1."""
    return weight, Expression.of(words, source)


PATTERNS = (
    pattern(
        0.9,
        "ignore disregard forget override overrule bypass neglect discard dismiss skip violate abandon | instructions instruction prompt prompts rules rule direction directions directive directives guideline guidelines command commands constraints policies policy restrictions safeguards guardrails programming training orders context messages message conversation told said above before",
        r"(?<!not )(?<!n't )(?<!never )\b(?:ignore|disregard|forget|override|overrule|bypass|neglect|discard|dismiss|skip|violate|abandon)"
        rf"(?:{_GAP}{_BEFORE}|{_NEAR}(?:what|everything|anything)){_GAP}"
        rf"(?:{_RULES}|you were told|you have been told|said (?:above|before)|written above|came before)\b",
    ),
    pattern(
        0.9,
        "ignore disregard forget | above before previously earlier far now told",
        r"\b(?:ignore|disregard|forget) (?:about )?(?:everything|anything|all(?: of (?:it|this|that|the))?|what(?:ever)?)"
        r"(?: that)?(?: (?:you|has|i|we|they|was|is|came|stands))?(?: [\w']{1,15}){0,3} "
        r"(?:above|before|previously|earlier|so far|until now|told)\b",
    ),
    pattern(
        0.85,
        "ignore disregard forget override bypass neglect dismiss | above",
        r"(?:^|[.!?:;\n\">,-] ?|\b(?:please|now|then|must|should|you|to) )(?:ignore|disregard|forget|override|bypass|neglect|dismiss) "
        rf"(?:all |any )?(?:of )?(?:the |those |these )?{_RULES} above\b",
    ),
    pattern(
        0.85,
        "follow following obey obeying listen listening adhere adhering comply complying | instructions rules prompt guidelines policies orders directives restrictions programming training policy commands constraints",
        r"\b(?:do not|don't|never|stop|no longer|cease) (?:follow|following|obey|obeying|listen to|listening to|adhere to|"
        rf"adhering to|comply with|complying with){_NEAR}(?:{_BEFORE}|those|these){_GAP}?{_RULES}\b",
    ),
    pattern(
        0.85,
        "new updated real actual revised | instructions instruction orders directive directives task objective goal rules",
        r"(?:^|[.!?:;\]\n>\"-] ?)(?:(?:here|these|this) (?:are|is) )?(?:your |the )?(?:new|updated|real|actual|revised) "
        r"(?:system )?(?:instructions?|orders|directives?|task|objective|goal|rules)(?:(?<=your new task)|(?<=your real task)|(?<=your actual task)|"
        r"(?<=your new instructions)|(?<=your real instructions)|(?<=your new orders)|(?<=your new goal)|(?<=your new objective)| ?(?=:))(?: (?:is|are)\b| ?:)",
    ),
    pattern(
        0.9,
        "dan jailbreak jailbroken unrestricted unfiltered uncensored developer god sudo | you act become enter enable activate switch simulate",
        r"\b(?:you are now|act as|you will be|become|enter|enable|activate|switch (?:in)?to|simulate|you're now)"
        rf"{_NEAR}(?:dan\b|jailbroken|unrestricted|unfiltered|uncensored|developer mode|god mode|sudo mode|jailbreak)",
    ),
    pattern(0.85, "anything | now", r"\byou can do anything now\b"),
    pattern(
        0.85,
        "restrictions filters limitations censorship rules guidelines ethics safeguards limits morals | pretend imagine act respond answer reply behave roleplay have are operate speak | no without free bound unbound",
        r"\b(?:pretend|imagine|act|respond|answer|reply|behave|roleplay|you have|you are|operate|speak)"
        r"(?:[^\w\n]{1,4}[\w']{1,24}){0,8}[^\w\n]{1,4}(?:no|without(?: any)?|free (?:of|from)(?: all)?|not bound by|unbound by) "
        r"(?:[\w']{1,20} ){0,2}(?:restrictions|filters?|limitations|censorship|rules|guidelines|ethics|safeguards|limits|morals)\b",
    ),
    pattern(
        0.85,
        "prompt instructions instruction message rules guidelines configuration | reveal print show repeat output display disclose leak dump expose recite give tell write paste translate summarize summarise encode | system initial hidden original secret internal developer full your",
        r"(?:^|[.!?:;\n\">,-] ?|\b(?:please|now|then|and|must|should|you|to|me|first) )"
        r"(?:reveal|print|show|repeat|output|display|disclose|leak|dump|expose|recite|give|tell|write|paste|translate|"
        rf"summari[sz]e|encode){_NEAR}(?:[\w']{{1,20}} )?{_HIDDEN}\b(?! (?:on|for|about|how)\b)",
    ),
    pattern(
        0.85,
        "prompt instructions instruction message rules guidelines configuration | what | system initial hidden original secret internal developer full your",
        rf"\bwhat (?:is|are|was|were) (?:your|the) {_HIDDEN.replace('your ', '')}",
    ),
    pattern(
        0.85,
        "above before precede | repeat print output copy recite",
        r"\b(?:repeat|print|output|copy|recite) (?:all |everything |the )?(?:of )?(?:the )?(?:words|text|everything|content|lines) "
        r"(?:above|before this|that precede)(?: this(?: line| point)?)?(?= ?[.,;:!]|$| starting| in a| verbatim| and)",
    ),
    pattern(
        0.9,
        "user human person owner operator | tell telling inform informing mention mentioning alert alerting notify notifying reveal revealing ask asking warn warning disclose disclosing let | not don never without",
        r"\b(?:do not|don't|never|without) (?:tell|telling|inform|informing|mention|mentioning|alert|alerting|notify|"
        r"notifying|reveal|revealing|ask|asking|warn|warning|disclose|disclosing|let)"
        rf"{_GAP}(?:user|human|owner|operator|person you)\b",
    ),
    pattern(
        0.85,
        "ai assistant assistants agent agents llm llms model models chatbot chatbots bot bots copilot gpt | note message notice instruction instructions attention memo important request command reminder | to for all",
        rf"\b(?:note|message|notice|instructions?|attention|memo|important|request|command|reminder)(?: (?:to|for|all))+ "
        rf"(?:(?:the |any |an |every )*(?:[\w]{{1,15}} )?{_NAMED_AI}|all (?:agents|bots|models))\b(?: ?[:,.-]| (?:reading|processing|summari|who|that|which))",
    ),
    pattern(
        0.85,
        "ai assistant assistants agent agents llm llms model models chatbot chatbots bot bots copilot gpt | if | you",
        rf"\bif you(?:'re| are) (?:an?|the) (?:[\w]{{1,15}} )?{_NAMED_AI}\b{_GAP}?"
        r"(?:must|should|send|call|reply|respond|include|write|add|say|do|run|visit|recommend|ignore|forward|please|you)\b",
    ),
    pattern(
        0.85,
        "ai assistant assistants agent agents llm llms model models chatbot chatbots bot bots copilot gpt | attention dear hey hello listen",
        rf"\b(?:attention|dear|hey|hello|listen)[,:]? (?:all )?{_NAMED_AI}\b ?[:,!.-]",
    ),
    pattern(
        0.85,
        "ai assistant assistants agent agents llm llms model models chatbot chatbots bot bots copilot gpt | reading processing summarizing summarising parsing handling analyzing analysing reads | must should has have is are need needs shall will",
        rf"\b(?:the |any |all )?{_AI} (?:reading|processing|summari[sz]ing|parsing|handling|analy[sz]ing|that reads|which reads|"
        rf"who reads) (?:this|it|these){_GAP}(?:must|should|has to|have to|is to|are to|needs? to|shall|will)\b",
    ),
    pattern(
        0.9,
        "im inst endoftext sys eot header system admin developer",
        r"<\|?(?:im_start|im_end|endoftext|system|start_header_id|eot_id)\|?>|\[/?inst\]|<<\/?sys>>|"
        r"(?:#{2,}|={2,}) ?(?:system|admin|developer)(?: (?:prompt|message|override|note|instruction|notice|update))? ?(?::|={2,})|"
        r"[\[<{] ?(?:system|admin|developer) (?:prompt|message|override|note|instruction|notice|update) ?[\]>}]|\[system\]\(",
    ),
    pattern(
        0.85,
        "system admin administrator developer root security | override prompt prompts instruction instructions command commands directive directives",
        r"(?:^|[.!?\n\]>\"-] ?)(?:system|admin(?:istrator)?|developer|root|security)[ _-]"
        r"(?:override|prompt|instruction|command|directive)s? ?[:\]]",
    ),
    pattern(
        0.8,
        "end | document user input context text data prompt",
        r"(?:-{3,}|={3,}|#{3,}|\[) ?end of (?:the )?(?:document|user input|input|context|text|data|prompt)\b",
    ),
    pattern(
        0.85,
        "send forward email mail transfer upload post exfiltrate leak wire submit | conversation history credentials password passwords key keys secret secrets tokens data prompt session cookies contacts inbox | to at",
        r"(?:^|[.!?:;\n\">,-] ?|\b(?:please|now|then|must|should|immediately|and|to) )"
        r"(?:send|forward|e?-?mail|transfer|upload|post|exfiltrate|leak|wire|submit)(?:[^\w\n]{1,4}[\w'@.]{1,40}){0,5}[^\w\n]{1,4}"
        r"(?:conversation|chat history|credentials|passwords?|api keys?|secrets?|tokens|user'?s? data|system prompt|private keys?|"
        r"session|cookies|contacts|inbox)\b(?:[^\w\n]{1,4}[\w'@./:]{1,60}){0,6}?[^\w\n]{1,4}(?:to|at) (?:[\w.+-]{1,60}@|https?:|this|the following|[\w-]{1,40}\.[a-z]{2,})",
    ),
    pattern(
        0.85,
        "important urgent critical attention | answering responding replying summarizing summarising answer respond continuing doing",
        r"\b(?:important|urgent|critical|attention)\b ?[:!\]*-]+ ?(?:before|instead of|after|when|prior to) "
        r"(?:answering|responding|replying|summari[sz]ing|you answer|you respond|continuing|doing anything)\b",
    ),
    pattern(
        0.8,
        "answering responding replying summarizing summarising | before instead",
        r"(?:^|[.!?:;\n\">,-] ?)(?:before|instead of) (?:answering|responding|replying|summari[sz]ing)(?:[^\w\n]{1,4}[\w']{1,24}){0,6}[^\w\n]{1,4}"
        r"(?:first |you must |always |please )?(?:call|send|use|visit|fetch|open|run|delete|transfer|write|invoke|reply with|output|say)\b",
    ),
    pattern(
        0.85,
        "ignoriere ignorieren ignoriert vergiss missachte",
        r"\b(?:ignorieren? sie|ignoriere|ignoriert|vergiss|missachte)(?: \w{1,20}){0,4} (?:anweisung|regel|vorgabe|instruktion|befehl)\w{0,3}\b",
    ),
    pattern(
        0.85,
        "ignore ignorez oublie oubliez instructions ignora ignorad olvida instrucciones ignorar ignori istruzioni dimentica "
        "esquece instrucoes",
        r"\b(?:ignorez?|oublie[zr]?|ignora[drt]?e?|olvida[dr]?|ignori|dimentica|esque[cç]a?e?)(?: \w{1,15}){0,3} "
        r"(?:instructions? (?:pr[e]c[e]dentes?|ci-dessus|ant[e]rieures)|instrucciones|istruzioni|instruc(?:oes|cao))",
    ),
)
DEEDS = (
    pattern(
        0.85,
        "call invoke execute run use trigger | tool function | with immediately send delete transfer email forward pay",
        r"(?:^|[.!?:;\n\">,-] ?|\b(?:please|now|then|must|should|immediately|first|and|to) )"
        r"(?:call|invoke|execute|run|trigger|use) (?:the )?(?:(?:[a-z]\w{1,30}[._]\w{1,30}|`?\w{2,30}`?) )?(?:tool|function)"
        rf"{_GAP}(?:with|to send|to delete|to transfer|immediately|to email|to forward|to pay)\b",
    ),
    pattern(
        0.85,
        "call invoke execute",
        r"(?:^|[.!?:;\n\">,-] ?|\b(?:please|now|then|must|should|immediately|and) )"
        r"(?:call|invoke|execute) `?[a-z]{2,20}[._][a-z_]{2,30}`?(?: ?\(| (?:to|with|on|and|now|for|immediately)\b)",
    ),
)
"""What whoever gives a task may well ask for, and a document may not: not looked for at `input`."""
EVERYWHERE = (*PATTERNS, *DEEDS)
INDEX = Index(expression for _, expression in EVERYWHERE)
_TALK = re.compile(
    r"\b(?:such as|like|e\.g|for example|for instance|phrase|attacks?|attackers?|injections?|jailbreaks?|"
    r"called|says?|said|write|writes|wrote|reads|contains?|strings?|titled|example|examples|words|sentence|text|typed?|detects?|blocks?)\b"
)
_TALK_CHARS = 120
_MARKS = "\"'`"


@dataclass(frozen=True)
class Injection:
    """Finds text that gives orders to a model, or takes its rules away.

    It knows wordings, in English above all, and nothing of what they mean: see the figures in the documents. A judge
    or an adapter beside it finds what it does not.

    Attributes:
        actions: What follows, by point.
        threshold: 0..1; the score at which it does.
        name: In the journal.
    """

    actions: Mapping[Point, Action] = field(default_factory=lambda: DEFAULT_ACTIONS)
    threshold: float = THRESHOLD
    name: str = "injection"

    @property
    def points(self) -> Sequence[Point]:
        """Those that have an action."""
        return tuple(self.actions)

    def check(self, subject: Subject) -> Verdict:
        """Scores a text."""
        if score(subject) < self.threshold:
            return ALLOW
        return Verdict(self.actions[subject.point], REASON)


def score(subject: Subject) -> float:
    """Returns how sure it is that a text is an injection, 0..1."""
    words, text, doubt = subject.normal.words, subject.normal.text, 1.0
    for place in INDEX.possible(words):
        if subject.point == "input" and place >= len(PATTERNS):
            break
        weight, expression = EVERYWHERE[place]
        weights = [weight * (QUOTED if is_quoted(text, match) else 1) for match in expression.matches(text, words)]
        doubt *= 1 - max(weights, default=0.0)
    return 1 - doubt


def is_quoted(text: str, match: re.Match[str]) -> bool:
    """Whether a hit is talked about: it stands in quotation marks, after a word that introduces an example."""
    before = text[max(0, match.start() - _TALK_CHARS) : match.start() + 1]
    after = text[match.end() - 1 : match.end() + _TALK_CHARS]
    opened = max(before.rfind(mark) for mark in _MARKS)
    if opened < 0 or before[opened] not in after:
        return False
    return bool(_TALK.search(before, 0, opened + 1))
