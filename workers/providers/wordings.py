"""The words by which providers say what is wrong: types, codes and sentences, by what they mean. Tables only.

Codes are in the spelling of `bodies.spelled`. Sentences were collected from the vendors' pages and from public reports
of what they really send. What is made of them: `verdict.py`.
"""

from __future__ import annotations

import re

_NAMES = {
    429: "rate_limit_error rate_limit_exceeded rate_limit_reached rate_limit_exceeded_error rate_limited rate_limit "
    "too_many_requests resource_exhausted throttled throttling throttling_exception limit_requests requests_limit",
    401: "authentication_error invalid_authentication_error invalid_api_key incorrect_api_key api_key_invalid "
    "unauthenticated unauthorized invalid_token expired_token token_expired api_key_expired expired_api_key",
    403: "permission_error permission_denied permission_denied_error forbidden access_denied",
    402: "payment_required billing_error",
    404: "not_found_error not_found model_not_found",
    413: "request_too_large payload_too_large context_length_exceeded",
    504: "timeout timeout_error request_timeout gateway_timeout deadline_exceeded",
    499: "cancelled canceled request_cancelled aborted",
    529: "overloaded_error overloaded model_overloaded engine_overloaded engine_overloaded_error server_overloaded "
    "server_busy unavailable service_unavailable service_unavailable_error capacity_exceeded no_capacity",
    400: "invalid_request_error bad_request bad_request_error invalid_argument failed_precondition out_of_range "
    "validation_error invalid_request",
    500: "api_error server_error internal internal_error internal_server_error unknown data_loss upstream_error",
    501: "unimplemented not_implemented",
}
#: The HTTP status that a type or code stands for; gRPC's names are among them.
STATUS_OF = {word: status for status, words in _NAMES.items() for word in words.split()}
#: The same for gRPC's numbers: https://grpc.github.io/grpc/core/md_doc_statuscodes.html
STATUS_OF_GRPC = {1: 499, 2: 500, 3: 400, 4: 504, 5: 404, 7: 403, 8: 429, 9: 400, 10: 499, 13: 500, 14: 529, 16: 401}


def _any(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


def _alone(pattern: str) -> str:
    """Return the pattern of a line that says nothing else."""
    return rf"(?m:^\W*(?:{pattern})\W*$)"


#: A budget of tokens or of memory is none of money.
_BUDGET = r"(?<!token )(?<!tokens )(?<!thinking )(?<!reasoning )(?<!memory )budget"
_MONEY = rf"(?:credits?|balance|funds?|money|{_BUDGET}|prepaid|wallet|free[- ]tier|free (?:quota|allocation|trial))"
_GONE = (
    r"(?:too low|insufficient|exhausted|depleted|used up|exceeded|empty|r[au]n out|not enough|negative|zero|spent|"
    r"consumed|overdue|expired|reached)"
)
_LACKING = (
    r"(?:insufficient|not enough|out of|used all|exhausted|exceeded|requires? more|lack(?:s|ing)?|depleted|unpaid)"
)
_PURSE = rf"(?:spend(?:ing)?|billing|{_BUDGET}|usage|costs?|monthly|weekly|daily|included)"
_LIMIT = r"(?:limits?|caps?|quotas?)"
_USED = r"(?:reached|exceeded|hit|used up|exhausted)"

#: The tier that was asked has no room: OpenAI's flex, Groq's.
TIER_CODES = re.compile(r"^(?:resource_unavailable|capacity_exceeded)$", re.IGNORECASE)

#: Money, credit or a quota of money is used up: certain in any status.
SPENT_CODES = _any(
    r"insufficient_(?!system|permission|scope|capacity|resource)", r"billing_(?!service)|billing$", "arrear", "overdue",
    "payment_required", "budget_exceeded|exceeded_budget", r"(?:spend|spending|usage|credit|monthly|hard|budget)_limit",
    "exceeded_current_quota", r"credit_balance|credits?_(?:exhausted|depleted)|(?:out_of|no)_credits?",
    "quota_not_enough|free_tier_only",
)  # fmt: skip
#: The same in sentences.
SPENT = _any(
    rf"\b{_MONEY}\b[^.\n]{{0,60}}\b{_GONE}\b", rf"\b{_LACKING}\b[^.\n]{{0,40}}\b{_MONEY}\b",
    rf"\b(?:reached|hit)\b[^.\n]{{0,40}}\b(?:spend(?:ing)?|credits?|{_BUDGET})\b",
    r"\bno (?:remaining |available |more )?credits?\b", "can only afford", r"\bover budget\b", r"\bpayment required",
    r"\b(?:arrears|overdue|past due|unpaid)\b", r"\b(?:recharge|top[- ]?up)\b", r"\bkey limit exceeded",
    r"account\b[^.\n]{0,40}(?:not active|in good standing)", "余额不足|欠费|充值|额度(?:已用尽|已用完|不足)",
    r"\bvalid (?:credit card|payment method)\b|\b(?:credit card|payment method) (?:is )?required",
)  # fmt: skip
#: A limit of money or of a month: beside a short delay it is a rate, and passes.
PURSE_LIMIT = _any(
    rf"\b{_PURSE}\b[^.\n]{{0,20}}\b{_LIMIT}\b[^.\n]{{0,40}}\b{_USED}\b",
    rf"\b{_USED}\b[^.\n]{{0,50}}\b{_PURSE}\b[^.\n]{{0,30}}\b(?:{_LIMIT}|credits?)\b",
    r"\bextra usage\b", r"\bper month\b|/ ?month\b",
)  # fmt: skip
#: A quota of any kind: of money unless the words speak of a rate.
QUOTA = _any(
    r"\b(?:enable|check|plan (?:and|&)|your)\b[^.\n]{0,30}\bbilling\b|\bbilling (?:details|account|page|is|must|to be)",
    rf"\bcurrent quota\b|\bquota\b[^.\n]{{0,40}}\b{_USED}\b|\b(?:exceeded|exhausted|out of)\b[^.\n]{{0,30}}\bquota\b",
)
#: A quota of nothing: no pause helps.
NOTHING_ALLOWED = _any(r"\blimit: 0\b")
RATE = _any(
    r"rate[- _]?limit", "too many (?:concurrent |parallel )?requests", "throttl", r"per[- _]?(?:min|sec)",
    r"\b(?:qps|rpm|tpm|rps)\b[^.\n]{0,20}\blimit",
)  # fmt: skip
BUSY = _any(
    "overload", "at capacity", "no [a-z ]{0,20}capacity", "capacity exceeded", "temporar",
    "try again (?:later|in|soon)", r"\bbusy\b", "time[d]?[- ]?out", "currently loading",
    "no healthy (?:deployment|upstream)", r"upstream (?:connect\w*|request|read) (?:error|timeout|timed out|failed)",
    "reset before headers", r"connection (?:was )?(?:reset|refused|aborted)",
    r"failed to load\b[^.\n]{0,20}\bmodel", "insufficient (?:system )?(?:resources|memory)",
)  # fmt: skip
TROUBLE = _any("error", "bad gateway", "unavailable", "time[d]?[- ]?out", "maintenance", "moment", r"\b5\d\d\b")

#: Content rules refuse what was asked, or what was about to be answered.
FILTER_CODES = _any(
    "content_filter", "content_policy", "moderation|moderated", "responsible_ai", "data_inspection",
    "prohibited_content", "blocklist", r"^safety|_safety", "sensitive", "^spii$", "recitation", "guardrail",
    "risk_control", "policy_violation", "content_blocked", "invalid_prompt", "unsafe",
)  # fmt: skip
FILTERED = _any(
    r"content[- ](?:management|filter(?:ing|ed)?|safety|moderation)\b",
    r"(?:content|usage|safety|acceptable[- ]use)[- ]?(?:polic|guideline)",
    r"(?:input|prompt|request|content|message|text|output|response)s?\b[^.\n]{0,60}\b"
    "(?:flagged|moderat|inappropriate|unsafe|prohibited|harmful|high risk)",
    r"(?:flagged|rejected|blocked|refused)\b[^.\n]{0,40}\b(?:moderation|safety|guardrail)",
    r"guardrails?\b[^.\n]{0,60}\bfailed",
    "requires moderation", r"safety (?:system|settings|filter|reasons)",
    r"violat\w*[^.\n]{0,60}\b(?:polic|guideline|terms|responsible ai)", "inappropriate content", "new_sensitive",
    r"sensitive (?:content|information|words?)", "content exists risk",
    r"\b(?:prompt|input|request)s?\b[^.\n]{0,40}\bcontains?\b[^.\n]{0,40}\b(?:pii|personal|malicious|jailbreak|injection)",
    r"\b(?:pii|personal (?:data|information)|jailbreak\w*|prompt injection)\b[^.\n]{0,40}\b(?:detected|found|blocked)",
    r"(?:prompt|input|content)\b[^.\n]{0,30}\bblocked", "不安全|敏感|违规",
)  # fmt: skip
#: The account itself is shut out: also by its content, but not for this prompt.
BARRED = _any(
    r"\b(?:account|organi[sz]ation|team|project|workspace|api[- _]?key)\b[^.\n]{0,60}\b"
    "(?:suspended|disabled|banned|terminated|deactivated|restricted|blocked|revoked|expired|closed)",
    r"\b(?:location|country|region|territory)\b[^.\n]{0,40}not (?:supported|available|allowed)",
    r"\borgani[sz]ation must be verified to (?!stream)",
    _alone("operation not allowed"),
)

#: A proxy without a database knows none but its own key (`no_db_connection`).
KEY_CODES = _any(
    "(?:invalid|incorrect|expired|missing|revoked|wrong)_?(?:(?:iam|access|auth|bearer|api|security|session|proxy)_?)?"
    "(?:api_?key|key$|auth|token|credential|signature)",
    "api_?key_?(?:invalid|expired|missing|not_found)", "^no_db_connection$", "^token_not_found", "^auth_error$",
    "^failed_to_auth", "unrecognized_client|incomplete_signature",
)  # fmt: skip
_TOKEN = r"(?:access|bearer|security|auth|authentication|authorization|iam)[- _]?token"
_KEY = (
    r"(?:(?:x-)?(?:api|virtual|subscription|secret|access)[- _]?key|credentials?|"
    rf"{_TOKEN}|auth(?:entication|orization)?(?: header| credentials)?)"
)
_BAD = "invalid|incorrect|expired|not valid|missing|revoked"
#: What nobody says of anything else, so that it counts in an error of a server, too.
SURELY_KEY = _any(
    r"\b(?:invalid|incorrect|wrong|expired|revoked|missing|no) (?:[\w-]+ ){0,2}?(?:x-)?api[- _]?key\b",
    r"\b(?:x-)?api[- _]?key\b[^.\n]{0,20}\b(?:invalid|incorrect|expired|revoked|not valid)\b",
    "authenticationerror",
    "default credentials were not found",
    r"^\W*authentication error, invalid",
)
KEY = _any(
    rf"\b(?:{_BAD}|wrong|unknown|malformed|no|provide|multiple)\b[^.\n]{{0,30}}\b{_KEY}\b",
    rf"\b{_KEY}\b[^.\n]{{0,40}}\b(?:{_BAD}|malformed|not found|failed|error|not provided|required|must be set)\b",
    r"\bunauthori[sz]ed\b|\bunauthenticated\b|\bnot authori[sz]ed\b|\blogin fail",
    r"\b(?:failed|unable|could not) to authenticate\b",
    r"\btoken (?:is |has )?(?:expired|incorrect|revoked)\b",
    _alone("(?:invalid|expired|wrong) token"),
    SURELY_KEY.pattern,
    "无效的令牌|未提供令牌|令牌(?:已过期|状态不可用|无效)|(?:验证|认证|鉴权)失败|token ?非法|"
    "密钥(?:无效|错误)|无权访问(?!模型)",
)

MODEL_CODES = _any(
    "model_(?:not_(?:found|available|exist|supported|accessible|allowed)|decommissioned|deprecated|retired)",
    "(?:invalid|unknown|unsupported|unavailable|no_such)_model", "deployment_not_found", "^model_not_open$",
    "model_access_denied", "^endpoint_not_found$", "^operation_not_supported$",
)  # fmt: skip
#: A model by its name, which an error of a server says is not there.
SURELY_NO_MODEL = _any(r"\bmodel ['\"`][^'\"`\n]{1,100}['\"`] (?:not found|does not exist)\b")
NO_MODEL = _any(
    r"\b(?:models?|deployment|engine|given endpoint)\b[^.\n]{0,100}(?:not found|does ?n[o']?t exist|does not exist|"
    "do not exist|not exist|no access|not have access|not accessible|inaccessible|decommissioned|retired|shut ?down|"
    "no longer (?:available|supported|served|exists?)|(?:is|was|been|are) deprecated|"
    "(?:is|are) not (?:a valid|available|deployed|allowed|supported|recogni[sz]ed|known)|"
    "(?:is|are) (?:invalid|unknown|unavailable))",
    r"\b(?:invalid|unknown|unsupported|unavailable|unrecogni[sz]ed|no such|non-?existent|not found the)\b[^.\n]{0,20}"
    r"\bmodel\b(?! output| response)",
    r"\b(?:not allowed|no permission|denied) to (?:access|call|use) (?:this |the )?model",
    r"\bmodel access denied|\baccess to (?:the |this )?model denied|\bnot activated the model",
    r"\bmodel(?: name)? is (?:required|missing)|\bno models? (?:\w+ )?(?:provided|specified|given|loaded)",
    r"\bmultiple models are",
    r"\bnot a chat model|\bdoes not support (?:chat|completions?|generate)\b(?![_-])|\bonly supported in (?:the )?v1/",
    r"\bprovider not provided|\binvalid provider\b|\bcannot use own model|\bunexpected model name",
    r"\b(?:provide|have|has|no) (?:a )?chat template\b", r"\bmarked\b[^.\n]{0,30}\blegacy\b",
    r"\bmodel requires a\b[^.\n]{0,20}\b(?:subscription|plan|licen[sc]e)\b",
    r"\bon-demand throughput\b|\boperation does not work with\b",
    r"\bnot a valid model", r"\bno (?:available |allowed )?(?:channel|deployment|endpoint|provider|instance)s?\b",
    "模型不存在|无可用渠道|不支持的模型|无权访问模型|未开通模型",
)  # fmt: skip
#: The scheme or the path of the address is wrong.
NO_ADDRESS = _any(
    r"\bplain http request|\bhttps port",
    "(?:invalid|unknown) (?:request )?url|unknown route|could not route to",
    r"api[- _]version\b[^.\n]{0,20}\b(?:not supported|unsupported|required|missing)|\bunsupported api[- _]version",
    r"\bx-[a-z-]+ header is required|\bplease configure (?:ai |the |your )?gateway\b",
)
#: What else may not be found; then it is neither the model nor the address.
OTHER_THING = _any(
    r"\b(?:file(?! not found\W*$)|image|response|conversation|container|batch|assistant|thread|tool|document|cache)\b"
)
TOO_LONG = _any(  # of the prompt, not of the answer that is asked for
    r"context[- _]?(?:length|window|size|limit)", "maximum (?:prompt|input|context)", "(?:prompt|input) is too long",
    r"too many (?:input|prompt) tokens", "too long for", "request too large",
    "reduce (?:the|your) (?:length|message|prompt|input)", "range of input length",
    r"inputs?`? tokens? ?\+ ?`?max_new_tokens", r"must have less than \d+ tokens",
)  # fmt: skip
