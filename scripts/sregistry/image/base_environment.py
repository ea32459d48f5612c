"""The base environment: directories, scripts and links that every image gets, the same for all.

Apptainer and Singularity from 3.6 read `env` with a shell of their own (mvdan.cc/sh) and never start
`actions`; older ones start `actions` with the image's /bin/sh. So the scripts keep to what dash,
busybox, bash and that shell understand alike. Sections named "§" are those of the project's
specification, oci-to-sif.md; §5 lists the files, §6 and §7 say what each is for.
"""

from __future__ import annotations

FOLDER = ".singularity.d"
#: Where a definition file's %environment would go; engines know the file by its name (§7).
USER_ENVIRONMENT = f"{FOLDER}/env/90-environment.sh"

_SOURCE_ENVIRONMENT = """\
for sregistry_file in /.singularity.d/env/*.sh; do
    if [ -f "$sregistry_file" ]; then
        . "$sregistry_file"
    fi
done
unset sregistry_file
"""

_EXEC = f"""\
#!/bin/sh
{_SOURCE_ENVIRONMENT}exec "$@"
"""

_RUN = f"""\
#!/bin/sh
{_SOURCE_ENVIRONMENT}if [ -n "${{SINGULARITY_APPNAME:-}}" ]; then
    if [ -x "/scif/apps/$SINGULARITY_APPNAME/scif/runscript" ]; then
        exec "/scif/apps/$SINGULARITY_APPNAME/scif/runscript" "$@"
    fi
    echo "the app $SINGULARITY_APPNAME has no runscript" >&2
    exit 1
fi
if [ -x /.singularity.d/runscript ]; then
    exec /.singularity.d/runscript "$@"
fi
exec /bin/sh "$@"
"""

_SHELL = f"""\
#!/bin/sh
{_SOURCE_ENVIRONMENT}if [ -n "${{SINGULARITY_SHELL:-}}" ] && [ -x "$SINGULARITY_SHELL" ]; then
    exec "$SINGULARITY_SHELL" "$@"
fi
if [ -x /bin/bash ]; then
    SHELL=/bin/bash
    PS1='Singularity> '
    export SHELL PS1
    exec /bin/bash --norc "$@"
fi
if [ -x /bin/sh ]; then
    SHELL=/bin/sh
    export SHELL
    exec /bin/sh "$@"
fi
echo "the image has no shell" >&2
exit 1
"""

_TEST = f"""\
#!/bin/sh
{_SOURCE_ENVIRONMENT}sregistry_test=/.singularity.d/test
if [ -n "${{SINGULARITY_APPNAME:-}}" ]; then
    sregistry_test="/scif/apps/$SINGULARITY_APPNAME/scif/test"
fi
if [ -x "$sregistry_test" ]; then
    exec "$sregistry_test" "$@"
fi
exit 0
"""

# Singularity 3.0 to 3.5 wait for that signal before they call an instance started.
_START = f"""\
#!/bin/sh
kill -CONT 1
{_SOURCE_ENVIRONMENT}if [ -x /.singularity.d/startscript ]; then
    exec /.singularity.d/startscript "$@"
fi
"""

_APPS = """\
#!/bin/sh
# The environment of a SCIF app, when one is asked for.
if [ -n "${SINGULARITY_APPNAME:-}" ]; then
    export SINGULARITY_APPNAME
    SCIF_APPS=/scif/apps
    SCIF_APPROOT="$SCIF_APPS/$SINGULARITY_APPNAME"
    if [ ! -d "$SCIF_APPROOT" ]; then
        echo "the image has no app $SINGULARITY_APPNAME" >&2
        exit 1
    fi
    PATH="$SCIF_APPROOT/bin:$SCIF_APPROOT:$PATH"
    LD_LIBRARY_PATH="$SCIF_APPROOT/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
    export SCIF_APPS SCIF_APPROOT PATH LD_LIBRARY_PATH
    if [ -f "$SCIF_APPROOT/scif/env/01-base.sh" ]; then
        . "$SCIF_APPROOT/scif/env/01-base.sh"
    fi
    if [ -f "$SCIF_APPROOT/scif/env/90-environment.sh" ]; then
        . "$SCIF_APPROOT/scif/env/90-environment.sh"
    fi
fi
"""

# An engine injects --env and APPTAINERENV_* right after the file of this name (§7).
_BASE = """\
#!/bin/sh
LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}/.singularity.d/libs"
[ -n "${PS1:-}" ] || PS1='Singularity> '
export LD_LIBRARY_PATH PS1
"""

_RUNTIME_VARIABLES = """\
#!/bin/sh
# What the user asked for with SINGULARITYENV_PREPEND_PATH, _APPEND_PATH and _PATH.
if [ -n "${SING_USER_DEFINED_PREPEND_PATH:-}" ]; then
    PATH="$SING_USER_DEFINED_PREPEND_PATH:$PATH"
fi
if [ -n "${SING_USER_DEFINED_APPEND_PATH:-}" ]; then
    PATH="$PATH:$SING_USER_DEFINED_APPEND_PATH"
fi
if [ -n "${SING_USER_DEFINED_PATH:-}" ]; then
    PATH="$SING_USER_DEFINED_PATH"
fi
unset SING_USER_DEFINED_PREPEND_PATH SING_USER_DEFINED_APPEND_PATH SING_USER_DEFINED_PATH
export PATH
"""

_PLACEHOLDER = "#!/bin/sh\n# {}\n"
#: Text of USER_ENVIRONMENT.
USER_ENVIRONMENT_TEXT = _PLACEHOLDER.format("The image's own environment, as %environment of a definition file would set it.")
#: Text of the startscript.
STARTSCRIPT = _PLACEHOLDER.format("What an instance runs; a registry image says nothing of it.")

#: Directories and their modes, parents first; the mount points of §11 among them.
DIRECTORIES = {
    FOLDER: 0o755,
    f"{FOLDER}/actions": 0o755,
    f"{FOLDER}/env": 0o755,
    f"{FOLDER}/libs": 0o755,
    "dev": 0o755,
    "etc": 0o755,
    "home": 0o755,
    "proc": 0o755,
    "root": 0o755,
    "sys": 0o755,
    "tmp": 0o1777,
    "var": 0o755,
    "var/tmp": 0o1777,
}

#: Files and their texts; all are 0755.
SCRIPTS = {
    f"{FOLDER}/actions/exec": _EXEC,
    f"{FOLDER}/actions/run": _RUN,
    f"{FOLDER}/actions/shell": _SHELL,
    f"{FOLDER}/actions/start": _START,
    f"{FOLDER}/actions/test": _TEST,
    f"{FOLDER}/env/01-base.sh": _PLACEHOLDER.format("The first file of the environment."),
    USER_ENVIRONMENT: USER_ENVIRONMENT_TEXT,
    f"{FOLDER}/env/94-appsbase.sh": "",
    f"{FOLDER}/env/95-apps.sh": _APPS,
    f"{FOLDER}/env/99-base.sh": _BASE,
    f"{FOLDER}/env/99-runtimevars.sh": _RUNTIME_VARIABLES,
    f"{FOLDER}/startscript": STARTSCRIPT,
}

#: Symbolic links and their targets.
LINKS = {
    ".exec": f"{FOLDER}/actions/exec",
    ".run": f"{FOLDER}/actions/run",
    ".shell": f"{FOLDER}/actions/shell",
    ".test": f"{FOLDER}/actions/test",
    "environment": USER_ENVIRONMENT,
    "singularity": f"{FOLDER}/runscript",
}
