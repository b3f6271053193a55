"""시험에 쓰는 가짜 W&B 서버: GraphQL과 file stream을 알아듣고 받은 것을 적어 둔다.

`WANDB_BASE_URL`에 `server.url`을 적으면 `wandb.init`과 `wandb sync`가 이 서버에 올린다.
`server.mode`를 바꾸면 그때부터 다르게 군다. 'silent'는 받고 답하지 않고, 'half'는 첫
질문에만 답하고, 'wrong key'는 키를 거절한다.
"""

import base64
import json
import socket
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

KEY = 'made-up-for-tests-' + 'x1' * 20  # 모양만 맞는 키


class FakeRun:
    def __init__(self, name, project):
        self.name = name
        self.project = project
        self.config = '{}'
        self.files = {}  # 이름마다 {줄 번호: 내용}. 진짜 서버처럼 같은 줄은 덮어쓴다.
        self.uploaded = {}  # 이름마다 내용
        self.exit_codes = []

    def lines(self, name):
        numbered = self.files.get(name, {})
        return [numbered[number] for number in sorted(numbered)]

    @property
    def history(self):
        return [json.loads(line) for line in self.lines('wandb-history.jsonl')]

    @property
    def summary(self):
        return json.loads((self.lines('wandb-summary.json') or ['{}'])[-1])

    def bucket(self, with_tails=False):
        entity = {'id': 'e', 'name': 'tester'}
        bucket = {
            'id': f'bucket-{self.name}',
            'name': self.name,
            'displayName': self.name,
            'config': self.config,
            'project': {'id': 'p', 'name': self.project, 'entity': entity},
            'historyLineCount': len(self.files.get('wandb-history.jsonl', ())),
        }
        if with_tails:
            for kind in ('history', 'events'):
                lines = self.lines(f'wandb-{kind}.jsonl')
                bucket[f'{kind}LineCount'] = len(lines)
                bucket[f'{kind}Tail'] = json.dumps(lines[-1:])
            bucket['logLineCount'] = len(self.lines('output.log'))
            bucket['summaryMetrics'] = json.dumps(self.summary)
            bucket['wandbConfig'] = json.dumps({'t': 1})
        return bucket


class FakeWandb(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(('127.0.0.1', 0), _Handler)
        self.mode = 'ok'
        self.runs = {}
        self.slow = 0  # 아티팩트의 파일 하나를 받는 데 걸리는 시간(초)
        self.committed = 0  # 다 올라온 아티팩트의 수
        self.errors = []  # 이 서버가 잘못 답한 것
        self.asked = []  # 들어온 GraphQL 질문의 이름
        self.bodies = []  # 들어온 모든 요청의 내용
        self.resumed = []  # 서버가 이어진다고 답한 실행
        self.closing = threading.Event()

    @property
    def url(self):
        return f'http://127.0.0.1:{self.server_address[1]}'

    def handle_error(self, request, client_address):
        "기다리다 끊은 클라이언트는 알릴 일이 아니다. 나머지는 적어 둔다."
        error = sys.exception()
        if not isinstance(error, ConnectionError):
            self.errors.append(repr(error))

    def run(self, variables):
        name = variables.get('name')
        project = variables.get('project') or 'uncategorized'
        return self.runs.setdefault(name, FakeRun(name, project))

    def answer(self, operation, variables):
        self.asked.append(operation)
        if operation == 'UpsertBucket':
            inserted = variables.get('name') not in self.runs
            run = self.run(variables)
            run.config = variables.get('config') or run.config
            return {'upsertBucket': {'bucket': run.bucket(), 'inserted': inserted}}
        if operation == 'RunResumeStatus':
            run = self.runs.get(variables['name'])
            bucket = run and run.bucket(with_tails=True)
            self.resumed += [run.name] if run else []
            entity = {'id': 'e', 'name': 'tester'}
            model = {'id': 'p', 'name': 'p', 'entity': entity, 'bucket': bucket}
            return {'model': model}
        if operation == 'CreateRunFiles':
            [run, names] = variables['run'], variables['files']
            files = [
                {'name': name, 'uploadUrl': f'{self.url}/upload/{run}/{name}'}
                for name in names
            ]
            made = {'runID': run, 'uploadHeaders': [], 'files': files}
            return {'createRunFiles': made}
        if operation == 'RunStoppedStatus':
            return {'project': {'run': {'stopped': False}}}
        if operation == 'MarkRunFilesUploaded':
            return {'markRunFilesUploaded': {'success': True}}
        if operation.endswith(('Artifact', 'ArtifactFiles', 'ArtifactManifest')):
            return self.artifact(operation, variables)
        teams = {'edges': []}
        viewer = {'id': 'v', 'entity': 'tester', 'username': 'tester', 'flags': '{}'}
        viewer |= {'email': 'tester@example.com', 'teams': teams}
        features = {'features': []}
        nothing = {'project': None, 'artifact': None, 'organization': None}
        return {'viewer': viewer, 'serverInfo': features, **nothing}

    def artifact(self, operation, variables):
        "체크포인트 하나를 올리는 다섯 질문의 답"
        made = {'id': 'artifact', 'state': 'PENDING', 'digest': ''}
        made['artifactSequence'] = {'latestArtifact': None}
        place = {'uploadHeaders': [], 'uploadMultipartUrls': None}
        if operation == 'CreateArtifactFiles':
            nodes = []
            for file in variables['input']['artifactFiles']:
                url = f'{self.url}/upload/artifact/{file["name"]}'
                node = {'storagePath': file['name'], 'uploadUrl': url, **place}
                nodes.append({'node': {**node, 'artifact': {'id': 'artifact'}}})
            return {'createArtifactFiles': {'files': {'edges': nodes}}}
        url = f'{self.url}/upload/artifact/manifest'
        file = {'id': 'file', 'uploadUrl': url, 'uploadHeaders': []}
        manifest = {'artifactManifest': {'id': 'manifest', 'file': file}}
        if operation == 'CommitArtifact':
            self.committed += 1
        return {
            'createArtifact': {'artifact': made},
            'createArtifactManifest': manifest,
            'updateArtifactManifest': manifest,
            'commitArtifact': {'artifact': made},
        }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def log_message(self, *parts):
        "시험 출력에 섞이지 않게 한다."

    def _reply(self, content, status=200):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header('Content-Type', 'application/json')
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _read(self):
        body = self.rfile.read(int(self.headers.get('Content-Length') or 0))
        self.server.bodies.append(body)
        first = b'query Viewer {' in body
        if self.server.mode == 'silent' or self.server.mode == 'half' and not first:
            self.server.closing.wait()
            self.close_connection = True
            return None
        kind, _, secret = (self.headers.get('Authorization') or '').partition(' ')
        known = kind == 'Basic' and base64.b64decode(secret) == f'api:{KEY}'.encode()
        guarded = self.path.endswith(('/graphql', '/file_stream'))
        if guarded and (self.server.mode == 'wrong key' or not known):
            self._reply({'errors': [{'message': 'user is not logged in'}]}, 401)
            return None
        return body

    def do_GET(self):
        if self._read() is not None:
            self._reply({})

    def do_PUT(self):
        body = self._read()
        if body is not None:
            if '/artifact/' in self.path:
                time.sleep(self.server.slow)
            [_, _, run, name] = urlsplit(self.path).path.split('/', 3)
            self.server.run({'name': run}).uploaded[name] = body
            self._reply({})

    def do_POST(self):
        body = self._read()
        if body is None:
            return
        path = urlsplit(self.path).path
        content = {} if path.startswith('/sdk/') else json.loads(body or '{}')
        if path.endswith('/graphql'):
            query = content.get('query') or ''
            operation = content.get('operationName') or query.strip()[:40]
            variables = content.get('variables') or {}
            self._reply({'data': self.server.answer(operation, variables)})
        elif path.endswith('/file_stream'):
            run = self.server.run({'name': path.split('/')[-2]})
            for name, part in (content.get('files') or {}).items():
                lines = run.files.setdefault(name, {})
                lines.update(enumerate(part['content'], part['offset']))
            if content.get('complete'):
                run.exit_codes.append(content.get('exitcode'))
            self._reply({'exitcode': None, 'limits': {}})
        elif path.startswith('/mode/'):
            self.server.mode = path.removeprefix('/mode/')
            self._reply({})
        else:  # 사용 통계 등. 이 서버에는 없다.
            self._reply({}, 404)


@contextmanager
def fake_wandb():
    "`with` 안에서 도는 가짜 서버"
    server = FakeWandb()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()


def closed_url():  # 듣는 이가 없는 주소
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        return f'http://127.0.0.1:{listener.getsockname()[1]}'
