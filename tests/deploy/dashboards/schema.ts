// The type of a dashboard file, from Grafana's published schema. The TypeScript
// compiler checks each dashboard as a literal of the type `Checked`, so an unknown
// key, a missing key or a value outside an enumeration is an error at its line.
import type { DataQuery, Dashboard, FieldConfig, FieldConfigSource, Panel, RowPanel, VariableModel } from '@grafana/schema';
import type * as Heatmap from '@grafana/schema/dist/esm/raw/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen';
import type * as Stat from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type * as StateTimeline from '@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen';
import type * as Table from '@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen';
import type * as TimeSeries from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';

/** The JSON form of a type: an enumeration of strings becomes its string values. */
type Json<T> = T extends string
  ? `${T}`
  : T extends readonly (infer Item)[]
    ? Json<Item>[]
    : T extends object
      ? { [Key in keyof T]: Json<T[Key]> }
      : T;

/** A query to a Prometheus data source. */
interface PromQuery extends Omit<DataQuery, 'datasource'> {
  datasource: { type: 'prometheus'; uid: '${datasource}' };
  expr: string;
  legendFormat: string;
  format?: 'time_series' | 'table' | 'heatmap';
  instant?: boolean;
}

type Defaults<Custom> = Omit<FieldConfig, 'custom'> & { custom?: Partial<Custom> };

type PanelOf<Type extends string, Options, Custom = Record<string, never>> = Omit<
  Panel,
  'type' | 'options' | 'fieldConfig' | 'targets'
> & {
  type: Type;
  options: Partial<Options>;
  fieldConfig: Omit<FieldConfigSource, 'defaults'> & { defaults: Defaults<Custom> };
  targets: PromQuery[];
};

type Variable = Omit<VariableModel, 'query'> & { query: string | { query: string; refId: string } };

type AnyPanel =
  | RowPanel
  | PanelOf<'heatmap', Heatmap.Options, Heatmap.FieldConfig>
  | PanelOf<'stat', Stat.Options>
  | PanelOf<'state-timeline', StateTimeline.Options, StateTimeline.FieldConfig>
  | PanelOf<'table', Table.Options>
  | PanelOf<'timeseries', TimeSeries.Options, TimeSeries.FieldConfig>;

/** A dashboard file. */
export type Checked = Json<
  Omit<Dashboard, 'panels' | 'templating'> & { panels: AnyPanel[]; templating: { list: Variable[] } }
>;
