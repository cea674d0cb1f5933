"""Graphs of calls: `bind` instead of `remote`, then `execute`, or `experimental_compile` and many executions.

with InputNode() as inp:
    graph = second.step.bind(first.step.bind(inp))
compiled = graph.experimental_compile()
print(umbel.get(compiled.execute(1)))
"""

from __future__ import annotations

from umbel._client import modules as _modules
from umbel._client.graphs.compiled import CompiledDAG as CompiledDAG
from umbel._client.graphs.compiled import CompiledDAGFuture as CompiledDAGFuture
from umbel._client.graphs.compiled import CompiledDAGRef as CompiledDAGRef
from umbel._client.graphs.nodes import ClassMethodNode as ClassMethodNode
from umbel._client.graphs.nodes import ClassNode as ClassNode
from umbel._client.graphs.nodes import DAGInputData as DAGInputData
from umbel._client.graphs.nodes import DAGNode as DAGNode
from umbel._client.graphs.nodes import FunctionNode as FunctionNode
from umbel._client.graphs.nodes import InputAttributeNode as InputAttributeNode
from umbel._client.graphs.nodes import InputNode as InputNode
from umbel._client.graphs.nodes import MultiOutputNode as MultiOutputNode
from umbel._client.graphs.settings import DAGContext as DAGContext

__getattr__ = _modules.attributes_of(__name__)  # says what is missing

__all__ = [
    "ClassMethodNode",
    "ClassNode",
    "CompiledDAG",
    "CompiledDAGFuture",
    "CompiledDAGRef",
    "DAGContext",
    "DAGInputData",
    "DAGNode",
    "FunctionNode",
    "InputAttributeNode",
    "InputNode",
    "MultiOutputNode",
]
