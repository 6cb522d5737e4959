"""Lua scripts in a simulated Redis: EVAL, EVALSHA and SCRIPT over Lua 5.1, with what Redis gives to scripts.

There is one Lua for all servers of the process, since scripts keep nothing in it; a compiled script is kept by its sha.
"""

import json
import math
from collections.abc import Callable, Sequence
from hashlib import sha1
from typing import Any

import lupa.lua51
import msgspec

from tests.simulation.engine import COMMANDS, Engine, command
from tests.simulation.resp import OK, Refusal, Reply, Simple, integer, plain

NOT_IN_SCRIPTS = {b"eval", b"evalsha", b"script", b"wait", b"subscribe", b"unsubscribe", b"hello", b"auth", b"client"}

_SANDBOX = """
io, os.execute, os.exit, os.remove, os.rename, os.tmpname, os.getenv = nil, nil, nil, nil, nil, nil, nil
dofile, loadfile, require, package, module, print, debug, newproxy, python = nil, nil, nil, nil, nil, nil, nil, nil, nil
return function(code) return loadstring(code, '@user_script') end
"""

_LOCK = """
local globals = _G
setmetatable(globals, {
  __index = function(_, name)
    if name == 'debug' then return nil end -- lupa looks for it
    error("Script attempted to access nonexistent global variable '" .. tostring(name) .. "'", 2)
  end,
  __newindex = function(_, name) error("Attempt to modify a readonly table", 2) end,
})
"""


class Scripts:
    """The Lua of all simulated servers."""

    def __init__(self) -> None:
        self._lua = lupa.lua51.LuaRuntime(encoding=None, unpack_returned_tuples=True, register_eval=False)
        self._compile: Any = self._lua.execute(_SANDBOX)
        self._compiled: dict[bytes, Any] = {}
        self._engine: Engine | None = None
        table = self._lua.table_from
        own = self._lua.globals()
        own[b"redis"] = table(
            {
                b"call": self._call,
                b"pcall": self._pcall,
                b"sha1hex": lambda text: sha1(_text(text), usedforsecurity=False).hexdigest().encode(),
                b"error_reply": lambda text: table(
                    {b"err": text if text[:1] == b"-" or b" " in text else b"ERR " + text}
                ),
                b"status_reply": lambda text: table({b"ok": text}),
                b"log": lambda *_: None,
                b"setresp": self._set_version,
                b"replicate_commands": lambda: True,
                b"LOG_WARNING": 3,
                b"LOG_NOTICE": 2,
                b"LOG_VERBOSE": 1,
                b"LOG_DEBUG": 0,
            }
        )
        own[b"cjson"] = table({b"encode": self._to_json, b"decode": self._from_json})
        own[b"cmsgpack"] = table({b"pack": self._pack, b"unpack": self._unpack})
        own[b"KEYS"] = own[b"ARGV"] = table([])
        self._set: Any = self._lua.eval("function(keys, argv) rawset(_G, 'KEYS', keys) rawset(_G, 'ARGV', argv) end")
        self._lua.execute(_LOCK)

    def compiled(self, text: bytes) -> Any:
        """Compile a script, or find it compiled. Raises Refusal."""
        digest = sha(text)
        if digest not in self._compiled:
            function = self._compile(text)
            if isinstance(function, tuple):
                raise Refusal(f"ERR Error compiling script (new function): {function[1].decode()}")
            self._compiled[digest] = function
        return self._compiled[digest]

    def run(self, engine: Engine, text: bytes, keys: Sequence[bytes], arguments: Sequence[bytes]) -> Reply:
        """Run a script and return its answer. Raises Refusal."""
        function = self.compiled(text)
        self._set(self._lua.table_from(keys), self._lua.table_from(arguments))
        self._engine, engine.in_script = engine, True
        try:
            return self._to_reply(function())
        except lupa.lua51.LuaError as error:
            where = f"script: {sha(text).decode()}, on @user_script:1."
            text_of = error.args[0]
            told = text_of.decode(errors="replace") if isinstance(text_of, bytes) else str(text_of)
            raise Refusal(f"ERR {told} {where}") from None
        finally:
            self._engine, engine.in_script = None, False

    # --- redis.* ------------------------------------------------------------------------------------------------------

    def _execute(self, parts: tuple[Any, ...]) -> Reply:
        assert self._engine is not None
        request = [_argument(part) for part in parts]
        if not request:
            return Refusal("ERR Please specify at least one argument for this redis.call() call")
        name = request[0].lower()
        if name in NOT_IN_SCRIPTS:
            return Refusal("ERR This Redis command is not allowed from script")
        if name not in COMMANDS:
            return Refusal("ERR Unknown Redis command called from script")
        _, least, most = COMMANDS[name]
        if not least < len(request) <= most + 1:
            return Refusal("ERR Wrong number of args calling Redis command from script")
        return self._engine.execute(request)

    def _call(self, *parts: Any) -> Any:
        reply = self._execute(parts)
        if isinstance(reply, Refusal):
            raise reply
        return self._to_lua(plain(reply))

    def _pcall(self, *parts: Any) -> Any:
        try:
            reply = self._execute(parts)
        except Refusal as refusal:
            reply = refusal
        return self._to_lua(plain(reply))

    @staticmethod
    def _set_version(version: int) -> None:
        if version != 2:
            raise Refusal("ERR the simulated Redis speaks RESP2 to scripts")

    # --- values -------------------------------------------------------------------------------------------------------

    def _to_lua(self, reply: Reply) -> Any:
        if reply is None:
            return False
        if isinstance(reply, Simple):
            return self._lua.table_from({b"ok": bytes(reply)})
        if isinstance(reply, Refusal):
            return self._lua.table_from({b"err": str(reply).encode()})
        if isinstance(reply, list):
            return self._lua.table_from([self._to_lua(item) for item in reply])
        return reply

    def _to_reply(self, value: Any) -> Reply:
        if isinstance(value, tuple):  # several values: the first counts
            value = value[0] if value else None
        if value is None or value is False:
            return None
        if value is True:
            return 1
        if isinstance(value, float):
            return math.trunc(value) if math.isfinite(value) else -(2**63)
        if isinstance(value, int | bytes):
            return value
        if lupa.lua51.lua_type(value) != "table":
            return None
        if (error := value[b"err"]) is not None:
            return Refusal(error.decode(errors="replace").removeprefix("-"))
        if (status := value[b"ok"]) is not None:
            return Simple(status)
        items: list[Reply] = []
        while (item := value[len(items) + 1]) is not None:
            items.append(self._to_reply(item))
        return items

    def _to_python(self, value: Any, text: Callable[[bytes], Any]) -> Any:
        if isinstance(value, bytes):
            return text(value)
        if lupa.lua51.lua_type(value) != "table":
            return value
        length = len(value)
        if length or not list(value.keys()):
            return [self._to_python(value[index], text) for index in range(1, length + 1)] if length else {}
        return {self._to_python(key, text): self._to_python(item, text) for key, item in value.items()}

    def _from_python(self, value: Any) -> Any:
        if isinstance(value, str):
            return value.encode("utf-8", "surrogateescape")
        if isinstance(value, list):
            return self._lua.table_from([self._from_python(item) for item in value])
        if isinstance(value, dict):
            return self._lua.table_from(
                {self._from_python(key): self._from_python(item) for key, item in value.items()}
            )
        return value

    def _to_json(self, value: Any) -> bytes:
        return json.dumps(self._to_python(value, bytes.decode), separators=(",", ":"), ensure_ascii=False).encode()

    def _from_json(self, text: bytes) -> Any:
        return self._from_python(json.loads(text))

    def _pack(self, *values: Any) -> bytes:
        return b"".join(msgspec.msgpack.encode(self._to_python(value, bytes.decode)) for value in values)

    def _unpack(self, text: bytes) -> Any:
        return self._from_python(msgspec.msgpack.decode(text))


def _text(value: Any) -> bytes:
    return value if isinstance(value, bytes) else b"%.14g" % value


def _argument(part: Any) -> bytes:
    if isinstance(part, bytes):
        return part
    if isinstance(part, bool) or not isinstance(part, int | float):
        raise Refusal("ERR Lua redis lib command arguments must be strings or integers")
    return b"%.17g" % part


def sha(text: bytes) -> bytes:
    """Return what EVALSHA knows a script by."""
    return sha1(text, usedforsecurity=False).hexdigest().encode()


SCRIPTS = Scripts()


def _split(arguments: list[bytes]) -> tuple[list[bytes], list[bytes]]:
    count = integer(arguments[1])
    if count > len(arguments) - 2:
        raise Refusal("ERR Number of keys can't be greater than number of args")
    if count < 0:
        raise Refusal("ERR Number of keys can't be negative")
    return arguments[2 : 2 + count], arguments[2 + count :]


@command("eval", 2, -1)
def evaluate(engine: Engine, arguments: list[bytes]) -> Reply:
    keys, rest = _split(arguments)
    SCRIPTS.compiled(arguments[0])
    engine.scripts[sha(arguments[0])] = arguments[0]
    return SCRIPTS.run(engine, arguments[0], keys, rest)


@command("evalsha", 2, -1)
def evaluate_by_sha(engine: Engine, arguments: list[bytes]) -> Reply:
    keys, rest = _split(arguments)
    text = engine.scripts.get(arguments[0].lower())
    if text is None:
        raise Refusal("NOSCRIPT No matching script. Please use EVAL.")
    return SCRIPTS.run(engine, text, keys, rest)


@command("script", 1, -1)
def script(engine: Engine, arguments: list[bytes]) -> Reply:
    what = arguments[0].upper()
    if what == b"LOAD" and len(arguments) == 2:
        SCRIPTS.compiled(arguments[1])
        engine.scripts[sha(arguments[1])] = arguments[1]
        return sha(arguments[1])
    if what == b"EXISTS" and len(arguments) > 1:
        return [int(digest.lower() in engine.scripts) for digest in arguments[1:]]
    if what == b"FLUSH":
        engine.scripts.clear()
        return OK
    raise Refusal(f"ERR unknown subcommand '{arguments[0].decode(errors='replace')}'. Try SCRIPT HELP.")
