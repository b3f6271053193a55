"""nbdev 노트북을 문서로 읽는다: `#| hide` 셀은 감추고, 나머지 `#|` 줄은 지우고, 첫 쪽에는 차례를 붙인다."""
import nbformat

CHAPTERS = ('00_data', '01_callbacks', '02_model', '03_train', '04_evaluate', '05_share', '06_speed', '07_cli')


def read(text):
    notebook = nbformat.reads(text, as_version=4)
    for cell in notebook.cells:
        lines = cell.source.splitlines()
        if cell.cell_type == 'code' and (not lines or lines[0].startswith(('#| hide', '#| default_exp'))):
            cell.metadata['tags'] = ['remove-cell']
        cell.source = '\n'.join(line for line in lines if not line.startswith(('#| ', '# NBVAL_')))
    if notebook.cells[0].source.startswith('# cifar_lit'):
        notebook.cells.append(nbformat.v4.new_markdown_cell('\n'.join(['```{toctree}', ':hidden:', *CHAPTERS, '```'])))
    return notebook
