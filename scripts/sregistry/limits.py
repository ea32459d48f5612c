"""Limits: bytes, counts and seconds beyond which input is refused, each with its reason."""

# --- answers of registries ----------------------------------------------------------------------

#: Seconds from a request to the end of the answer's header lines: a busy registry takes some seconds, a proxy that scans a blob a minute.
ANSWER_SECONDS = 120.0
#: Bytes of an answer before somebody reads its body: http.client takes 100 header lines of 64 KiB; real ones have 8 KiB in all.
ANSWER_BYTES = 1 << 20
#: Seconds for the body of a document, a token, a page of a list: of 4 MiB at most, and of some KiB mostly.
DOCUMENT_SECONDS = 120.0
#: Seconds for a body that says what went wrong, or that nobody wants: a new connection is cheaper than a longer wait.
ERROR_SECONDS = 10.0
#: Bytes of such a body.
ERROR_BYTES = 64 << 10
#: Bytes of a realm's answer: tokens have some KiB, and up to 64 KiB with many scopes.
TOKEN_BYTES = 1 << 20
#: Lowest rate of a blob: so many bytes in so many seconds of waiting, else the try ends and the next one goes on: about 1 KiB/s, a tenth of
#: what a modem gives.
SLOW_BYTES, SLOW_SECONDS = 64 << 10, 60.0
#: Redirects of one request: browsers follow 20, registries send one or two.
REDIRECTS = 10
#: Content codings of one body, one over the other: servers use one, and each may be a bomb.
CODINGS = 2
#: Addresses of a foreign layer that are tried: Microsoft's layers have one, and each may cost a time-out.
FOREIGN_ADDRESSES = 8
#: Pages and names of a list: real ones have some thousand names on a few pages; Docker Hub's longest some 30,000.
LIST_PAGES, LIST_NAMES = 1000, 500_000
#: Pages of a list in a row that bring nothing new: a registry that filters late sends an empty page now and then.
LIST_IDLE_PAGES = 20
#: Seconds for all pages of a list.
LIST_SECONDS = 900.0
#: Bytes that a file system keeps free where a blob of unknown size comes in: other jobs' receipts and catalog must go on.
FREE_BYTES = 256 << 20
#: Bytes of a blob of unknown size between two looks at the free space: 64 looks a GiB cost nothing.
FREE_EVERY = 16 << 20
