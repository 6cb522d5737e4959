"""Lua scripts in a simulated Redis: EVAL and EVALSHA over Lua 5.1, with what the product's scripts take from Redis.

There is one Lua for all servers of the process, since scripts keep nothing in it; a compiled script is kept by its sha.
"""

import math
from collections.abc import Sequence
from hashlib import sha1
from typing import Any

import lupa.lua51
import msgspec

from tests.simulation.engine import COMMANDS, Engine, command
from tests.simulation.resp import Refusal, Reply, Simple, integer, plain

NOT_IN_SCRIPTS = {b"eval", b"evalsha", b"wait", b"subscribe", b"unsubscribe", b"hello"}

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
        own[b"redis"] = table({b"call": self._call})
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

    # --- values -------------------------------------------------------------------------------------------------------

    def _to_lua(self, reply: Reply) -> Any:
        if reply is None:
            return False
        if isinstance(reply, Simple):
            return self._lua.table_from({b"ok": bytes(reply)})
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

    def _to_python(self, value: Any) -> Any:
        """Turn a table into a list: the product's scripts pack no maps."""
        if isinstance(value, bytes):
            return value.decode()
        if lupa.lua51.lua_type(value) != "table":
            return value
        return [self._to_python(value[index]) for index in range(1, len(value) + 1)]

    def _from_python(self, value: Any) -> Any:
        if isinstance(value, str):
            return value.encode()
        if isinstance(value, list):
            return self._lua.table_from([self._from_python(item) for item in value])
        return value

    def _pack(self, *values: Any) -> bytes:
        return b"".join(msgspec.msgpack.encode(self._to_python(value)) for value in values)

    def _unpack(self, text: bytes) -> Any:
        return self._from_python(msgspec.msgpack.decode(text))


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
