"""What mypy cannot be told by types alone: `plugins = ["umbel.mypy_plugin"]` in mypy's configuration.

mypy takes no notice of what a class decorator returns, so without this a class under `@umbel.remote` has no `remote`
for it (`Name = umbel.remote(PlainName)` needs no plugin). And it lets a reference stand for any argument, by name too.
"""

from __future__ import annotations

from collections.abc import Callable

from mypy.checker import TypeChecker
from mypy.expandtype import expand_type
from mypy.nodes import MemberExpr, TypeInfo
from mypy.plugin import AttributeContext, ClassDefContext, MethodSigContext, Plugin
from mypy.plugins.common import add_attribute_to_class
from mypy.types import (
    AnyType,
    CallableType,
    FunctionLike,
    Instance,
    Parameters,
    Type,
    TypeOfAny,
    UnionType,
    get_proper_type,
)

REMOTE = "umbel._client.remote.remote"
REF = "umbel._client.refs.ObjectRef"
CALL = "umbel._client.call_types.Call.__call__"
ADDED = ("remote", "options")


class UmbelPlugin(Plugin):
    def get_class_decorator_hook_2(self, fullname: str) -> Callable[[ClassDefContext], bool] | None:
        return _mark if fullname == REMOTE else None

    def get_class_attribute_hook(self, fullname: str) -> Callable[[AttributeContext], Type] | None:
        return _added if fullname.rpartition(".")[2] in ADDED else None

    def get_method_signature_hook(self, fullname: str) -> Callable[[MethodSigContext], FunctionLike] | None:
        return _with_references if fullname == CALL else None


def _mark(context: ClassDefContext) -> bool:
    for name in ADDED:
        add_attribute_to_class(context.api, context.cls, name, AnyType(TypeOfAny.special_form), is_classvar=True)
    context.cls.info.metadata["umbel"] = {}
    return True


def _added(context: AttributeContext) -> Type:
    """The type of `C.remote` or `C.options`: that of the same attribute of a RemoteClass."""
    made, checker = get_proper_type(context.type), context.api
    if not (isinstance(made, CallableType) and made.is_type_obj() and "umbel" in made.type_object().metadata):
        return context.default_attr_type
    if not isinstance(checker, TypeChecker) or not isinstance(context.context, MemberExpr):
        return context.default_attr_type
    any_type = AnyType(TypeOfAny.special_form)  # for what the variables of a generic class stand for, which nobody says
    constructor = expand_type(made, {variable.id: any_type for variable in made.variables})
    parameters = Parameters(constructor.arg_types, constructor.arg_kinds, constructor.arg_names)
    remote_class = _instance(checker, "call_types", "RemoteClass", [constructor.ret_type, parameters])
    access = checker.expr_checker.analyze_external_member_access
    return access(context.context.name, remote_class, context.context)


def _with_references(context: MethodSigContext) -> FunctionLike:
    """A call of `.remote` with a reference to its type allowed in place of each argument."""
    signature = context.default_signature
    checker = context.api
    if not isinstance(checker, TypeChecker):
        return signature

    def widened(type_: Type) -> Type:
        proper = get_proper_type(type_)
        if isinstance(proper, AnyType) or (isinstance(proper, Instance) and proper.type.fullname == REF):
            return type_
        return UnionType.make_union([type_, _instance(checker, "refs", "ObjectRef", [type_])])

    return signature.copy_modified(arg_types=[widened(type_) for type_ in signature.arg_types])


def _instance(checker: TypeChecker, module: str, name: str, arguments: list[Type]) -> Instance:
    node = checker.modules[f"umbel._client.{module}"].names[name].node
    if not isinstance(node, TypeInfo):
        raise TypeError(
            f"umbel._client.{module}.{name} must be a class, got {node!r}; the plugin is of another version"
        )
    return Instance(node, arguments)


def plugin(version: str) -> type[Plugin]:
    return UmbelPlugin
